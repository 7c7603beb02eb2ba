"""The default data: retail-like products drawn and photographed by a program, nothing to download.

Families of products share pack, colours and brand, and their members differ in small local details
alone, so that telling them apart is fine-grained. Four scenarios mirror the data sets of the paper
and what its backbone was pretrained on.
"""

from experiments.data.embedded.catalogue import assortments, catalogue
from experiments.data.embedded.design import Design, Family, Variant
from experiments.data.embedded.photos import packshot, store_photo
from experiments.data.embedded.scenarios import (
    SCENARIOS,
    SPLITS,
    Scenario,
    is_rendered,
    load_scenario,
    render_image,
    write_scenario,
)
from experiments.data.embedded.sheet import contact_sheet

__all__ = [
    "SCENARIOS",
    "SPLITS",
    "Design",
    "Family",
    "Scenario",
    "Variant",
    "assortments",
    "catalogue",
    "contact_sheet",
    "is_rendered",
    "load_scenario",
    "packshot",
    "render_image",
    "store_photo",
    "write_scenario",
]
