"""The page in a real browser, in front of the whole service: a person rates items and sees what was learnt."""

from __future__ import annotations

import re
from collections.abc import Iterator

import psutil
import pytest
from papa_serving.client import Client, UserDeleted
from playwright.sync_api import Browser, Page, expect

from tests.loop.service_process import Running, papa_up
from tests.papa.support import save_tiny_backbone
from tests.playground.browser import chromium
from tests.playground.sub_path import proxied

QUICK = {
    "PAPA_PLAYGROUND__ENABLED": "true", "PAPA_PLAYGROUND__PORT": "0", "PAPA_PLAYGROUND__PER_PAGE": "4",
    "PAPA_TRAINER__MIN_LABELS": "4", "PAPA_TRAINER__MAX_WAIT": "5", "PAPA_GENERATOR__STEPS": "4",
    "PAPA_GATEWAY__HOST": "::1",  # the whole loop over IPv6
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
    for index in range(4):
        page.locator(".item").nth(index).locator(".yes" if index % 2 else ".no").click()
    expect(page.locator("#said")).to_contain_text("Made by your own adapter", timeout=PATIENCE)
    expect(page.locator("#history li")).to_have_count(2)
    assert pictures(page) != first
    assert (page.locator("#likes").inner_text(), page.locator("#dislikes").inner_text()) == ("2", "2")
    with Client(service.grpc) as client:
        state = client.get_user("mouse")
        (only,) = client.list_revisions("mouse")
    assert state.current_revision == only, "a grid is one update"
    assert page.locator("#history .current").get_attribute("data-revision") == state.current_revision.name

    # Before and after: the same places, the same seeds, without the adapter and with it.
    after = pictures(page)
    expect(page.locator(".item .chance")).to_have_count(4)
    expect(page.locator("#expected")).to_have_text(re.compile(r"^[0-4]\.\d of 4$"))
    expect(page.locator("#sureness")).to_have_text(re.compile(r"^(100|[5-9]\d) %$"))
    expect(page.locator("#exploring")).to_have_text(re.compile(r"^[0-4] of 4$"))
    expect(page.locator("#draws")).to_have_text(re.compile(r"^[12]\.\d \(\d+ % kept\)$"))
    page.get_by_role("button", name="Before").click()
    expect(page.locator(".item .badge", has_text="before")).to_have_count(4)
    expect(page.locator(".item .chance")).to_have_count(0)
    expect(page.locator("#expected")).to_have_text("–")
    assert pictures(page) != after
    page.get_by_role("button", name="Before").click()
    expect(page.locator(".item .badge", has_text="before")).to_have_count(0)
    expect(page.locator("#expected")).to_have_text(re.compile(r"^[0-4]\.\d of 4$"))
    assert pictures(page) == after

    page.get_by_role("button", name="Go back to the backbone").click()
    page.get_by_role("button", name="Go back", exact=True).last.click()
    expect(page.locator("#said")).to_contain_text("Made by the backbone", timeout=PATIENCE)
    page.get_by_role("button", name="Go back to revision 1").click()
    page.get_by_role("button", name="Go back", exact=True).last.click()
    expect(page.locator("#said")).to_contain_text("Made by your own adapter", timeout=PATIENCE)
    page.locator(".item").first.locator(".yes").click()
    expect(page.locator("#reason")).to_have_text(re.compile(r"^It guessed [01] of 1 rated items right\.$"))


def test_the_page_works_under_any_path_of_a_proxy(page: Page, service: Running) -> None:
    missing: list[str] = []
    page.on("response", lambda response: missing.append(response.url) if response.status == 404 else None)
    with proxied(service.playground) as address:
        page.goto(f"{address}?user=proxied")
        expect(page.locator(".item img")).to_have_count(4, timeout=PATIENCE)
        for index in range(4):
            page.locator(".item").nth(index).locator(".yes").click()
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


def test_letters_act_anywhere_but_where_text_is_typed_and_can_be_switched_off(page: Page, service: Running) -> None:
    first = opened(page, service, "letters")
    page.get_by_label("User").press_sequentially("nbld")
    assert (pictures(page), page.locator(".badge", has_text="before").count()) == (first, 0)
    page.get_by_role("button", name="New grid").focus()
    page.keyboard.press("l")  # nothing has the focus: the first that is not rated
    expect(page.locator(".item").first).to_have_attribute("data-vote", "like")
    page.locator(".item").nth(2).hover()
    page.keyboard.press("d")
    expect(page.locator(".item").nth(2)).to_have_attribute("data-vote", "dislike")
    page.locator(".item").nth(1).focus()
    page.keyboard.press("b")
    expect(page.locator(".badge", has_text="before")).to_have_count(4)
    expect(page.locator(".item").nth(1)).to_be_focused()
    page.get_by_label("letter keys").uncheck()
    page.keyboard.press("n")
    expect(page.locator(".badge", has_text="before")).to_have_count(4)
    page.get_by_label("letter keys").check()
    page.locator(".item").nth(1).focus()
    page.keyboard.press("n")
    expect(page.locator(".item").first).to_be_focused()
    assert pictures(page) != first


def test_a_rating_is_of_the_picture_that_is_seen(page: Page, service: Running) -> None:
    opened(page, service, "beholder")
    with Client(service.grpc) as client:
        for index in range(4):
            page.locator(".item").nth(index).locator(".yes").click()
        expect(page.locator("#said")).to_contain_text("Made by your own adapter", timeout=PATIENCE)
        after = pictures(page)
        page.get_by_role("button", name="Before").click()
        expect(page.locator(".item .badge", has_text="before")).to_have_count(4)
        shown = pictures(page)
        with page.expect_request("**/api/feedback") as sent:
            page.locator(".item").first.locator(".no").click()
        (rating,) = sent.value.post_data_json["ratings"]
        expect(page.locator("#dislikes")).to_have_text("1", timeout=PATIENCE)
        page.get_by_role("button", name="Before").click()
        expect(page.locator(".item .badge", has_text="before")).to_have_count(0)
        assert page.locator(".item[data-vote=dislike]").count() == 0, "the adapter's item is not the one that was rated"
        page.get_by_role("button", name="Before").click()
        expect(page.locator(".item[data-vote=dislike]")).to_have_count(1)
        assert (pictures(page), after != shown) == (shown, True)
        assert client.get_user("beholder").dislikes == 1
        assert rating["grade"] == -1


def test_an_outage_is_said_in_words_and_bridged(page: Page, service: Running) -> None:
    opened(page, service, "patient")
    launcher = psutil.Process(service.process.pid)
    gateway = next(each for each in launcher.children(recursive=True) if "papa_serving.gateway" in each.cmdline())
    launcher.suspend()  # so that nobody starts the gateway again yet
    try:
        gateway.kill()
        page.locator(".item").first.locator(".yes").click()
        said = page.locator("#said")
        expect(said).to_have_text(
            "The service does not answer. It is tried again until it does. Your ratings are kept.", timeout=PATIENCE
        )
        page.get_by_role("button", name="New grid").click()
        expect(page.get_by_role("button", name="Try again")).to_be_visible(timeout=PATIENCE)
        assert page.locator(".item").count() == 0
        assert "Made by" not in said.inner_text()
    finally:
        launcher.resume()
    expect(page.locator(".item img")).to_have_count(4, timeout=PATIENCE)
    expect(page.locator("#likes")).to_have_text("1", timeout=PATIENCE)


def test_deleting_leaves_nothing_and_goes_on_as_a_guest(page: Page, service: Running) -> None:
    opened(page, service, "leaver")
    page.locator(".item").first.locator(".yes").click()
    expect(page.locator("#likes")).to_have_text("1", timeout=PATIENCE)
    page.get_by_role("button", name="Delete everything").click()
    page.get_by_role("button", name="Delete", exact=True).click()
    expect(page.locator("#said")).to_contain_text("leaver is deleted", timeout=PATIENCE)
    expect(page).to_have_title(re.compile("^guest-"))
    expect(page).to_have_url(re.compile(r"\?user=guest-"))
    expect(page.locator("#likes")).to_have_text("0")
    with Client(service.grpc) as client, pytest.raises(UserDeleted):
        client.get_user("leaver")


def test_a_picture_can_be_enlarged_kept_and_shown_to_somebody(page: Page, service: Running) -> None:
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    first = opened(page, service, "curator")
    page.locator(".item").nth(1).hover()
    page.get_by_role("button", name="Enlarge item 2").click()
    assert page.locator("#large-image").get_attribute("src") == first[1]
    assert page.locator("#download").get_attribute("download", timeout=PATIENCE)
    page.get_by_role("button", name="Share").click()
    expect(page.locator("#shared")).to_have_text("The link is copied.")
    link = page.evaluate("navigator.clipboard.readText()")
    page.goto(link)
    expect(page.locator("#large")).to_be_visible(timeout=PATIENCE)
    assert page.locator("#large-image").get_attribute("src") == first[1]


def test_nothing_jumps_while_the_page_comes(page: Page, service: Running) -> None:
    """Cumulative layout shift below 0.1, which web.dev calls good; the address follows the user."""
    page.add_init_script(
        "window.shifts = []; new PerformanceObserver((list) => window.shifts.push(...list.getEntries()"
        ".filter((each) => !each.hadRecentInput).map((each) => each.value)))"
        ".observe({type: 'layout-shift', buffered: true})"
    )
    opened(page, service, "steady")
    expect(page.locator("#history .strip img")).to_have_count(6, timeout=PATIENCE)
    assert sum(page.evaluate("window.shifts")) < 0.1
    page.get_by_label("User").fill("other")
    page.get_by_role("button", name="Switch").click()
    expect(page).to_have_url(re.compile(r"\?user=other$"))


def test_who_changes_their_mind_is_believed(page: Page, service: Running) -> None:
    opened(page, service, "fickle")
    item = page.locator(".item").first
    item.locator(".yes").click()
    expect(item.locator(".yes")).to_have_attribute("aria-pressed", "true")
    item.locator(".no").click()
    item.locator(".no").click()  # says it once
    expect(item).to_have_attribute("aria-label", "Item 1 of 4, disliked")
    expect(item.locator(".yes")).to_have_attribute("aria-pressed", "false")
    expect(page.locator("#dislikes")).to_have_text("1", timeout=PATIENCE)
    expect(page.locator("#likes")).to_have_text("0")
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
    for index, way in ((0, 1), (1, -1)):
        page.locator(".item").nth(index).evaluate(
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
    expect(page.locator("#said")).to_have_text(
        "That did not work: too much is waiting. Try again in 3 s.", timeout=PATIENCE
    )
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
