from minisora.pipelines.mask_path import mask_path
from minisora.pipelines.recipe import pack_mask


def _box(top: int, left: int, height: int = 2, width: int = 2) -> str:
    return pack_mask(
        [
            [top <= row < top + height and left <= column < left + width for column in range(12)]
            for row in range(10)
        ]
    )


def _corner(mask: object) -> list[int]:
    """Row and column of the first pixel, and how many there are."""
    places = mask.nonzero()  # type: ignore[attr-defined]
    return [*places[0].tolist(), len(places)]


def test_one_mask_is_that_of_every_frame() -> None:
    masks = mask_path([(3, _box(4, 5))], 6, 10, 12)
    assert masks.shape == (6, 10, 12)
    assert {tuple(_corner(each)) for each in masks} == {(4, 5, 4)}


def test_between_two_it_goes_straight_and_then_stands_still() -> None:
    masks = mask_path([(1, _box(0, 0)), (5, _box(8, 4))], 8, 10, 12)
    corners = [_corner(each)[:2] for each in masks]
    assert corners == [[0, 0], [0, 0], [2, 1], [4, 2], [6, 3], [8, 4], [8, 4], [8, 4]]
    assert {_corner(each)[2] for each in masks} == {4}


def test_it_has_the_shape_of_the_nearer_one_and_what_leaves_the_picture_is_gone() -> None:
    masks = mask_path([(0, _box(4, 4)), (4, _box(4, 4, 4, 4))], 5, 10, 12)
    assert [_corner(each)[2] for each in masks] == [4, 4, 16, 16, 16]
    left = mask_path([(0, _box(0, 0, 10, 12)), (4, _box(0, 11, 10, 1))], 5, 10, 12)
    # Nearer to the first one: all of the picture, of which the part that moved out is gone.
    assert _corner(left[1]) == [0, 1, 110]


def test_it_appears_and_goes_where_an_empty_one_was_left() -> None:
    empty = pack_mask([[False] * 12] * 10)
    masks = mask_path([(0, empty), (4, _box(4, 4)), (6, empty)], 8, 10, 12)
    assert [int(each.sum()) for each in masks] == [0, 0, 4, 4, 4, 0, 0, 0]
