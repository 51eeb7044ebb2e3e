"""The page in a real browser, in front of the whole service: a person rates items and sees what was learnt."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from papa_serving.client import Client
from playwright.sync_api import Browser, Page, expect

from tests.loop.service_process import Running, papa_up
from tests.papa.support import save_tiny_backbone
from tests.playground.browser import chromium
from tests.playground.sub_path import proxied

QUICK = {
    "PAPA_PLAYGROUND__ENABLED": "true", "PAPA_PLAYGROUND__PORT": "0", "PAPA_PLAYGROUND__PER_PAGE": "4",
    "PAPA_TRAINER__MIN_LABELS": "4", "PAPA_TRAINER__MAX_WAIT": "5", "PAPA_GENERATOR__STEPS": "4",
}  # fmt: skip
PATIENCE = 60_000
DESKTOP, PHONE = {"width": 1440, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def service(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("playground")
    with papa_up(folder / "data", save_tiny_backbone(folder / "backbone"), QUICK) as running:
        yield running


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    context = browser.new_context(viewport=DESKTOP)  # type: ignore[arg-type]
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    yield page
    context.close()
    assert not problems


def opened(page: Page, service: Running, user: str) -> list[str]:
    """The pictures of the first grid."""
    page.goto(f"{service.playground}/?user={user}")
    expect(page.locator(".item img")).to_have_count(4, timeout=PATIENCE)
    return pictures(page)


def pictures(page: Page) -> list[str]:
    return [str(image.get_attribute("src")) for image in page.locator(".item img").all()]


def test_ratings_are_learnt_and_a_new_grid_comes(page: Page, service: Running) -> None:
    first = opened(page, service, "mouse")
    expect(page.locator("#said")).to_contain_text("Made by the backbone")
    for place in range(4):
        page.locator(".item").nth(place).locator(".yes" if place % 2 else ".no").click()
    expect(page.locator("#said")).to_contain_text("Made by your own adapter", timeout=PATIENCE)
    expect(page.locator("#history li")).to_have_count(2)
    assert pictures(page) != first
    assert (page.locator("#likes").inner_text(), page.locator("#dislikes").inner_text()) == ("2", "2")
    with Client(service.grpc) as client:
        state = client.get_user("mouse")
    assert state.current_revision is not None
    assert page.locator("#history .current").get_attribute("data-revision") == state.current_revision.revision

    # Before and after: the same places, the same seeds, without the adapter and with it.
    after = pictures(page)
    page.get_by_role("button", name="Before").click()
    expect(page.locator(".item .badge")).to_have_count(4)
    assert pictures(page) != after
    page.get_by_role("button", name="Before").click()
    expect(page.locator(".item .badge")).to_have_count(0)
    assert pictures(page) == after

    page.get_by_role("button", name="Forget everything").click()
    page.get_by_role("button", name="Forget", exact=True).click()
    expect(page.locator("#said")).to_contain_text("Made by the backbone", timeout=PATIENCE)
    page.get_by_role("button", name="Go back to revision 1").click()
    page.get_by_role("button", name="Go back", exact=True).last.click()
    expect(page.locator("#said")).to_contain_text("Made by your own adapter", timeout=PATIENCE)


def test_the_page_works_under_any_path_of_a_proxy(page: Page, service: Running) -> None:
    missing: list[str] = []
    page.on("response", lambda response: missing.append(response.url) if response.status == 404 else None)
    with proxied(service.playground) as address:
        page.goto(f"{address}?user=proxied")
        expect(page.locator(".item img")).to_have_count(4, timeout=PATIENCE)
        for place in range(4):
            page.locator(".item").nth(place).locator(".yes").click()
        expect(page.locator("#said")).to_contain_text("Made by your own adapter", timeout=PATIENCE)
        page.goto("about:blank")
    assert not missing


def test_everything_by_keyboard(page: Page, service: Running) -> None:
    opened(page, service, "keys")
    page.keyboard.press("Tab")  # the skip link
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.locator(".item").first).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.locator(".item").nth(1)).to_be_focused()
    page.keyboard.press("ArrowLeft")
    for key in "ldld":
        page.keyboard.press(key)
    expect(page.locator(".item[data-vote=like]")).to_have_count(2)
    expect(page.locator("#said")).to_contain_text("Made by your own adapter", timeout=PATIENCE)


def test_letters_act_on_the_items_alone_and_the_place_is_kept(page: Page, service: Running) -> None:
    first = opened(page, service, "letters")
    page.keyboard.press("n")  # nothing has the focus
    page.get_by_label("User").press_sequentially("nb")
    page.get_by_role("button", name="New grid").focus()
    page.keyboard.press("b")
    assert (pictures(page), page.locator(".badge").count()) == (first, 0)
    page.locator(".item").nth(2).focus()
    page.keyboard.press("b")
    expect(page.locator(".badge")).to_have_count(4)
    page.keyboard.press("n")
    expect(page.locator(".item").first).to_be_focused()
    assert pictures(page) != first


def test_who_changes_their_mind_is_believed(page: Page, service: Running) -> None:
    opened(page, service, "fickle")
    item = page.locator(".item").first
    item.locator(".yes").click()
    expect(item.locator(".yes")).to_have_attribute("aria-pressed", "true")
    item.locator(".no").click()
    item.locator(".no").click()  # says it once
    expect(item).to_have_attribute("aria-label", "Item 1 of 4, disliked")
    expect(item.locator(".yes")).to_have_attribute("aria-pressed", "false")
    expect(page.locator("#dislikes")).to_have_text("1")
    expect(page.locator("#likes")).to_have_text("1")
    expect(page.locator("#curve")).to_have_attribute("aria-label", re.compile("^1 grids rated; 0 percent liked"))
    expect(page.locator(".legend").first).to_contain_text("the later rating counts")


def test_every_control_has_a_name_and_the_status_is_announced(page: Page, service: Running) -> None:
    opened(page, service, "names")
    for control in page.locator("button:visible, input:visible").all():
        named = control.evaluate(
            "e => e.ariaLabel || e.innerText.trim() || [...(e.labels ?? [])].map(l => l.innerText).join('').trim()"
        )
        assert named, control.evaluate("e => e.outerHTML")
    assert page.locator("#said").get_attribute("aria-live") == "polite"
    assert page.locator(".item").first.get_attribute("aria-label") == "Item 1 of 4, not rated"


def test_a_phone_shows_it_all_without_scrolling_sideways_and_swipes_rate(browser: Browser, service: Running) -> None:
    context = browser.new_context(viewport=PHONE, has_touch=True, is_mobile=True)  # type: ignore[arg-type]
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    opened(page, service, "thumb")
    assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
    small = [
        box for button in page.locator(".vote button").all() if (box := button.bounding_box()) and box["height"] < 44
    ]
    assert not small, "a finger needs 44 pixels"
    for place, way in ((0, 1), (1, -1)):
        page.locator(".item").nth(place).evaluate(
            """(item, way) => {
                const at = (kind, x) => item.dispatchEvent(
                    new PointerEvent(kind, {pointerType: "touch", clientX: x, clientY: 20, bubbles: true}));
                at("pointerdown", 100); at("pointermove", 100 + 40 * way); at("pointerup", 100 + 90 * way);
            }""",
            way,
        )
    expect(page.locator(".item[data-vote=like]")).to_have_count(1)
    expect(page.locator(".item[data-vote=dislike]")).to_have_count(1)
    context.close()


def test_what_the_service_refuses_is_said_in_words(page: Page, service: Running) -> None:
    opened(page, service, "late")
    page.route("**/api/feedback", lambda route: route.fulfill(
        status=429, content_type="application/json",
        body='{"error": {"reason": "BACKLOG_FULL", "message": "too much is waiting", "retry_after": 3}}'))  # fmt: skip
    page.locator(".item").first.locator(".yes").click()
    expect(page.locator("#said")).to_have_text("That did not work: too much is waiting. Try again in 3 s.")
    expect(page.locator(".item").first.locator(".yes")).to_have_attribute("aria-pressed", "false")


LOW_CONTRAST = """() => {
  const parts = (text) => text.match(/[\\d.]+/g).map(Number);
  const linear = (v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
  const light = ([r, g, b]) => 0.2126 * linear(r / 255) + 0.7152 * linear(g / 255) + 0.0722 * linear(b / 255);
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const text = getComputedStyle(node).backgroundColor;
      if (text.startsWith("rgb(")) return parts(text);
    }
    return [255, 255, 255];
  };
  const low = [];
  for (const node of document.querySelectorAll("body *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    if (!own || !node.checkVisibility() || node.closest("[disabled], svg, .sr, .skip, .badge, .current")) continue;
    const [high, dark] = [light(parts(getComputedStyle(node).color)), light(ground(node))].sort((a, b) => b - a);
    if ((high + 0.05) / (dark + 0.05) < 4.5) low.push(`${node.tagName} ${node.textContent.trim().slice(0, 40)}`);
  }
  return low;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read_and_motion_can_be_declined(browser: Browser, service: Running, scheme: str) -> None:
    """WCAG 2.1 AA: 4.5 to 1 for text; a focus that can be seen."""
    context = browser.new_context(viewport=DESKTOP, color_scheme=scheme, reduced_motion="reduce")  # type: ignore[arg-type]
    page = context.new_page()
    opened(page, service, "mouse")
    assert page.evaluate(LOW_CONTRAST) == []
    page.keyboard.press("Tab")
    assert page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle") == "solid"
    transition = page.locator(".item").first.evaluate("each => getComputedStyle(each).transitionDuration")
    assert set(transition.split(", ")) == {"0s"}
    context.close()


def test_a_name_is_text_and_is_offered_again(page: Page, service: Running) -> None:
    opened(page, service, "plain")
    name = '<img src=x onerror="alert(1)">'
    page.get_by_label("User").fill(name)
    page.get_by_role("button", name="Switch").click()
    expect(page).to_have_title(f"{name} · PAPA playground")
    expect(page.locator(".item img")).to_have_count(4, timeout=PATIENCE)
    assert page.locator("img[src=x]").count() == 0
    assert page.locator("#known option").evaluate_all("all => all.map(each => each.value)") == [name, "plain"]
