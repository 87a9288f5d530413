import numpy as np
import pandas as pd
import pytest
from PIL import Image

from sktda.cli.formats.images import ImageListing
from sktda.images import ImageFolder


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "pets"
    for name, colour in {
        "dog/1.png": "red",
        "cat/10.JPG": "green",
        "cat/2.png": "blue",
        "cat/deep/1.bmp": "blue",
    }.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 20), colour).save(root / name)
    for name in ("readme.txt", "top.png", "cat/Thumbs.db", "cat/.hidden.png", ".cache/1.png"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text("no image")
    return root


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_class_folders_are_read_in_the_order_of_their_paths(folder):
    images = ImageFolder.read(folder, 8)
    assert images.frame["path"].tolist() == ["cat/10.JPG", "cat/2.png", "cat/deep/1.bmp", "dog/1.png"]
    assert images.frame["label"].tolist() == ["cat", "cat", "cat", "dog"]
    assert images.X.shape == (4, 8, 8, 3)
    assert images.X.dtype == np.uint8
    assert images.X[1, 0, 0].tolist() == [0, 0, 255]
    assert images.X[3, 7, 7].tolist() == [255, 0, 0]
    assert images.picture(0).size == (40, 20)


def save_rotated(path):
    image = Image.new("RGB", (40, 20), "black")
    image.paste("white", (0, 0, 20, 20))  # the left half; shown on top once turned upright
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(path, exif=exif, quality=95)


def save_grey_16_bit(path):
    Image.fromarray(np.full((20, 20), 128 * 256, dtype=np.uint16)).save(path)


def save_transparent(path):
    Image.new("RGBA", (20, 20), (0, 0, 0, 0)).save(path)


def save_palette(path):
    Image.new("RGB", (20, 20), (10, 200, 30)).convert("P", palette=Image.Palette.ADAPTIVE).save(path)


@pytest.mark.parametrize(
    ("name", "save", "top", "bottom"),
    [
        ("x.jpg", save_rotated, [255, 255, 255], [0, 0, 0]),
        ("x.png", save_grey_16_bit, [128, 128, 128], [128, 128, 128]),
        ("x.png", save_transparent, [255, 255, 255], [255, 255, 255]),
        ("x.gif", save_palette, [10, 200, 30], [10, 200, 30]),
    ],
)
def test_pictures_are_read_as_they_are_seen(tmp_path, name, save, top, bottom):
    (tmp_path / "a").mkdir()
    save(tmp_path / "a" / name)
    images = ImageFolder.read(tmp_path, 8)
    np.testing.assert_allclose(images.X[0, 0].astype(int), [top] * 8, atol=6)
    np.testing.assert_allclose(images.X[0, -1].astype(int), [bottom] * 8, atol=6)


def test_all_broken_images_are_named(folder):
    for i in range(6):
        (folder / "dog" / f"bad{i}.png").write_bytes(b"")
    whole = (folder / "dog" / "1.png").read_bytes()
    (folder / "cat" / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match=r"7 of 11 images cannot be read: cat/cut\.png \(.*and 2 more") as caught:
        _ = ImageFolder.read(folder, 8).X
    assert "dog/bad3.png (not an image)" in str(caught.value)
    assert "dog/bad4.png" not in str(caught.value)


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "a").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "top.png")
    with pytest.raises(ValueError, match=r"has no images in class folders.* expected e\.g\. .*/cat/1\.png"):
        ImageFolder.read(tmp_path, 8)


def test_the_list_and_the_copy_follow_the_plan_and_the_folder_stays(folder, tmp_path):
    (folder / "dog" / "2.png").write_bytes((folder / "dog" / "1.png").read_bytes())
    images = ImageListing(ImageFolder.read(folder, 8))
    before = contents(folder)
    rows, relabelled = np.array([0, 1, 3, 4]), {1: "dog"}
    images.write(tmp_path / "list.csv", rows, "label", relabelled, pd.DataFrame({"flag": range(5)}))
    assert (tmp_path / "list.csv").read_text().splitlines() == [
        "path,label,flag",
        "cat/10.JPG,cat,0",
        "cat/2.png,dog,1",
        "dog/1.png,dog,3",
        "dog/2.png,dog,4",
    ]
    images.copy(tmp_path / "copy", rows, "label", relabelled)
    copied = {
        path.relative_to(tmp_path / "copy").as_posix(): data for path, data in contents(tmp_path / "copy").items()
    }
    assert sorted(copied) == ["cat/10.JPG", "dog/1.png", "dog/2-from-cat.png", "dog/2.png"]
    assert copied["dog/2-from-cat.png"] == before[folder / "cat" / "2.png"]
    assert contents(folder) == before
