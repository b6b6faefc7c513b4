from __future__ import annotations

from vtk_cli.data.byproducts.marks import OWN_LABEL, Collected, Read, joined


def part(image: str, *categories: str) -> Read:
    collected = Collected()
    for place, category in enumerate(categories):
        label = collected.label(category) if category else OWN_LABEL
        collected.add("clicks", collected.image(image), (place / 8, 0.5), label=label, block=place)
    collected.skip("something")
    return Read.of(collected)


def test_parts_joined_keep_the_image_and_class_of_every_mark() -> None:
    whole = joined([part("1", "cat", "dog"), part("2", "dog", "", "bird"), part("1", "bird")])
    clicks = whole.tables["clicks"]
    assert [whole.images[image] for image in clicks.image] == ["1", "1", "2", "2", "2", "1"]
    named = [whole.classes[label] if label != OWN_LABEL else "" for label in clicks.label]
    assert named == ["cat", "dog", "dog", "", "bird", "bird"]
    assert clicks.values[:, 0].tolist() == [0.0, 0.125, 0.0, 0.125, 0.25, 0.0]
    assert whole.skipped == {"something": 3}
    assert whole.trace is None
