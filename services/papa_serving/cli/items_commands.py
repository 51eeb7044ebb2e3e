"""`papa items`: what the service keeps of its generations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from papa_serving.cli.connection import Address, Tenant, UserId, connect
from papa_serving.cli.generate_command import Format, MaxEdge, Out, Quality, save
from papa_serving.cli.output import AsJson, check_writable, print_fields, print_json
from papa_serving.client import ImageFormat, ImageOptions

items = typer.Typer(name="items", no_args_is_help=True, help="Items that the service keeps.")

ItemId = Annotated[str, typer.Argument(metavar="ITEM", help="An id that papa generate prints.", show_default=False)]


@items.command()
def get(
    user: UserId,
    item: ItemId,
    image_format: Format = ImageFormat.PNG,
    max_edge: MaxEdge = None,
    quality: Quality = None,
    out: Out = Path("items"),
    address: Address = "",
    tenant: Tenant = "",
    json: AsJson = False,
) -> None:
    """Save the image of an item again, within its time to live."""
    check_writable(out)
    with connect(address, tenant) as client:
        found = client.get_item(user, item, image=ImageOptions(image_format, max_edge, quality))
    (file,) = save([found.item], found.generation_id, out)
    if json:
        print_json({**asdict(found), "file": file})
        return
    print_fields({
        "item": found.item.item_id, "made by": found.revision or "the backbone", "seed": found.item.seed,
        **({"prompt": found.prompt} if found.prompt else {}),
        **({"metadata": _told(found.metadata)} if found.metadata else {}),
        **({"tags": ", ".join(found.tags)} if found.tags else {}), "file": file,
    })  # fmt: skip


def _told(metadata: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in sorted(metadata.items()))
