import io
import multiprocessing
import pickle
import subprocess
import sys

import datasets
import fsspec
import numpy as np
import pyarrow.parquet as pq
import pytest
from omegaconf import OmegaConf
from PIL import Image

from hsl.data.files.decode import decode_image
from hsl.data.files.decode_masks import decode_mask
from hsl.data.files.scan import scan
from hsl.data.formats import hf_stream
from hsl.data.formats.hf import read_hub
from hsl.data.loading.loader import BatchOrder
from hsl.errors import DataError

FEATURES = datasets.Features(
    {
        "id": datasets.Value("string"),
        "image": datasets.Image(),
        "mask": datasets.Image(),
        "site": datasets.Value("string"),
        "kind": datasets.ClassLabel(names=["oil", "tempera"]),
        "year": datasets.Value("int32"),
    }
)


def encoded(array, kind="PNG"):
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind)
    return buffer.getvalue()


def row(number):
    picture = np.full((8 + number, 9, 3), number * 10, np.uint8)
    return {
        "id": f"p{number}",
        "image": {"bytes": encoded(picture, "JPEG" if number % 2 else "PNG"), "path": None},
        "mask": {"bytes": encoded(np.full(picture.shape[:2], number % 3, np.uint8)), "path": None},
        "site": ["north", "", None][number % 3],
        "kind": number % 2,
        "year": 1900 + number,
    }


def table(numbers):
    return datasets.Dataset.from_list([row(number) for number in numbers], features=FEATURES)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")


@pytest.fixture
def parquet(tmp_path):
    path = tmp_path / "art.parquet"
    table(range(6)).to_parquet(path)
    return path


@pytest.fixture
def parts(tmp_path):
    """As a download of a hub data set looks: two parts, one of them in two files."""
    folder = tmp_path / "art" / "data"
    folder.mkdir(parents=True)
    table([4, 3]).to_parquet(folder / "train-00000-of-00002.parquet")
    table([2]).to_parquet(folder / "train-00001-of-00002.parquet")
    table([0, 1]).to_parquet(folder / "validation-00000-of-00001.parquet")
    return folder.parent


def read(root, **options):
    return read_hub(root, "image", "mask", ["clean", "crack", "dirt"], **{"id_column": "id"} | options)


def test_pictures_and_masks_of_a_parquet_file(parquet):
    catalogue = read(parquet)
    assert catalogue.name == "art"
    assert catalogue.classes == ("clean", "crack", "dirt")
    assert [record.id for record in catalogue.records] == ["p0", "p1", "p2", "p3", "p4", "p5"]
    for number, record in enumerate(catalogue.records):
        assert record.image.read() == row(number)["image"]["bytes"]  # as stored, not encoded anew
        picture = decode_image(record.image.read(), record.image.name)
        assert picture.shape == (8 + number, 9, 3)
        assert np.abs(picture - number * 10.0).max() <= 2
        assert (decode_mask(record.mask.read(), record.mask.name) == number % 3).all()
        assert (record.instances, record.split, record.attributes) == (None, None, {})


def test_cells_are_named_by_data_set_row_and_column(parquet):
    record = read(parquet).records[2]
    assert record.image.name == f"{parquet}:train#2/image"
    assert record.mask.name == f"{parquet}:train#2/mask"


def test_several_parts_are_the_official_split_and_several_files_one_part(parts):
    records = read(parts).records
    assert [record.id for record in records] == ["p0", "p1", "p2", "p3", "p4"]
    assert [record.split for record in records] == ["val", "val", "train", "train", "train"]
    assert [record.image.read() for record in records] == [row(n)["image"]["bytes"] for n in range(5)]
    assert records[2].image.name.endswith(":train#2/image")


def test_one_part_alone_is_no_split(parts):
    records = read(parts, split="validation").records
    assert [(record.id, record.split) for record in records] == [("p0", None), ("p1", None)]


def test_a_part_that_is_no_official_one_has_to_be_chosen(tmp_path):
    both = datasets.DatasetDict({"train": table([0]), "extra": table([1])})
    both.save_to_disk(tmp_path / "saved")
    with pytest.raises(DataError, match=r"saved:extra` is none of train, validation, test.*data\.reader\.split"):
        read(tmp_path / "saved")
    assert [record.id for record in read(tmp_path / "saved", split="extra").records] == ["p1"]


def test_a_folder_written_by_save_to_disk(tmp_path):
    table([1, 0]).save_to_disk(tmp_path / "saved")
    records = read(tmp_path / "saved").records
    assert [record.id for record in records] == ["p0", "p1"]
    assert records[1].image.read() == row(1)["image"]["bytes"]


def test_without_ids_rows_are_numbered(parquet, parts):
    assert [record.id for record in read(parquet, id_column=None).records][:2] == ["000000", "000001"]
    numbered = [record.id for record in read(parts, id_column=None).records]
    assert numbered == [f"train_{n:06d}" for n in range(3)] + [f"validation_{n:06d}" for n in range(2)]


def test_ids_can_be_part_of_a_file_name(tmp_path):
    rows = [row(0) | {"id": "site/1\\a"}]
    datasets.Dataset.from_list(rows, features=FEATURES).to_parquet(tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet").records[0].id == "site_1_a"


def test_attributes_are_words_and_what_is_empty_is_left_out(parquet):
    records = read(parquet, attributes=["site", "kind", "year"]).records
    assert records[0].attributes == {"site": "north", "kind": "oil", "year": "1900"}
    assert records[1].attributes == {"kind": "tempera", "year": "1901"}
    assert records[2].attributes == {"kind": "oil", "year": "1902"}


def test_bytes_without_a_picture_type_are_read_too(tmp_path):
    rows = [{"image": row(n)["image"]["bytes"], "mask": row(n)["mask"]} for n in range(2)]
    datasets.Dataset.from_list(rows).to_parquet(tmp_path / "a.parquet")
    record = read(tmp_path / "a.parquet", id_column=None).records[1]
    assert record.image.read() == row(1)["image"]["bytes"]
    assert record.mask.read() == row(1)["mask"]["bytes"]


def test_pictures_that_are_paths_are_read_from_there(tmp_path):
    (tmp_path / "p.png").write_bytes(row(0)["image"]["bytes"])
    rows = [row(0) | {"image": {"bytes": None, "path": str(tmp_path / "p.png")}}]
    datasets.Dataset.from_list(rows, features=FEATURES).save_to_disk(tmp_path / "saved")
    assert read(tmp_path / "saved").records[0].image.read() == row(0)["image"]["bytes"]


def test_an_empty_cell_is_named_when_it_is_read(tmp_path):
    rows = [row(0), row(1) | {"mask": None}]
    datasets.Dataset.from_list(rows, features=FEATURES).to_parquet(tmp_path / "a.parquet")
    source = read(tmp_path / "a.parquet").records[1].mask
    with pytest.raises(DataError, match=r"a\.parquet:train#1/mask` holds no picture"):
        source.read()


def test_another_process_opens_the_table_by_itself(parquet):
    source = read(parquet).records[3].image
    sent = pickle.dumps(source)
    assert len(sent) < 1000
    code = "import pickle, sys; sys.stdout.buffer.write(pickle.loads(sys.stdin.buffer.read()).read())"
    found = subprocess.run([sys.executable, "-c", code], input=sent, stdout=subprocess.PIPE, check=True)
    assert found.stdout == source.read()


def test_the_stamp_tells_cells_apart_and_follows_the_file(tmp_path):
    table([0, 1]).to_parquet(tmp_path / "a.parquet")
    first = read(tmp_path / "a.parquet").records
    stamps = [source.stamp() for record in first for source in (record.image, record.mask)]
    assert len(set(stamps)) == 4
    again = read(tmp_path / "a.parquet").records
    assert [record.image.stamp() for record in again] == [record.image.stamp() for record in first]
    table([0, 2]).to_parquet(tmp_path / "a.parquet")
    changed = read(tmp_path / "a.parquet").records
    assert changed[0].image.stamp() != first[0].image.stamp()
    assert changed[1].image.read() == row(2)["image"]["bytes"]


def test_values_of_a_configuration_are_taken(parquet):
    options = OmegaConf.create(
        {
            "classes": ["clean", "crack"],
            "attributes": ["site"],
            "palette": {"clean": [0, 0, 0], "ignore": [9, 9, 9]},
            "value_range": [0, 4095],
            "ignore_index": 7,
        }
    )
    catalogue = read_hub(str(parquet), "image", "mask", **options)
    assert catalogue.classes == ("clean", "crack")
    assert catalogue.palette == {(0, 0, 0): 0, (9, 9, 9): 255}
    assert (catalogue.value_range, catalogue.ignore_index) == ((0.0, 4095.0), 7)


class TestErrors:
    def test_an_id_twice(self, parquet):
        with pytest.raises(DataError, match=r"Ids in `.*art\.parquet` should differ. Repeated are `oil`, `tempera`"):
            read_hub(parquet, "image", "mask", ["a", "b"], id_column="kind")

    def test_a_column_that_is_not_there(self, parquet):
        with pytest.raises(DataError, match=r"art\.parquet:train` should have the columns \['annotation', 'size'\]"):
            read_hub(parquet, "image", "annotation", ["a", "b"], attributes=["size"])

    def test_a_column_without_pictures(self, parquet):
        with pytest.raises(DataError, match=r"The column `site` of .* should hold pictures"):
            read_hub(parquet, "image", "site", ["a", "b"])

    def test_a_part_that_is_not_there(self, parts):
        with pytest.raises(DataError, match=r"`data.reader.split` should be one of \['train', 'validation'\]"):
            read(parts, split="test")

    def test_classes_that_are_none(self, parquet):
        with pytest.raises(DataError, match=r"`classes` in `data\.reader` should be a list of 2"):
            read_hub(parquet, "image", "mask", ["only"])

    def test_a_file_that_is_no_parquet(self, tmp_path, capfd):
        path = tmp_path / "a.parquet"
        path.write_bytes(b"PAR1 and no more")
        with pytest.raises(DataError, match=r"a\.parquet` cannot be read as a table: .*Set `data.root`") as error:
            read(path)
        assert "\n" not in str(error.value)
        assert capfd.readouterr().err == ""

    def test_a_folder_without_tables(self, tmp_path):
        (tmp_path / "empty").mkdir()
        with pytest.raises(DataError, match="empty` cannot be read as a table"):
            read(tmp_path / "empty")

    def test_a_folder_that_is_not_there(self, tmp_path):
        with pytest.raises(DataError, match="nowhere` is no file or folder here, nor could it be had from the hub"):
            read(tmp_path / "nowhere")

    @pytest.mark.parametrize(
        "error",
        [
            ConnectionError("Couldn't reach 'a/b' on the Hub (LocalEntryNotFoundError)"),
            datasets.exceptions.DatasetNotFoundError("Dataset 'a/b' doesn't exist on the Hub.\nMore lines"),
        ],
    )
    def test_a_hub_that_cannot_help(self, monkeypatch, error):
        def fail(*_, **__):
            raise error

        monkeypatch.setattr(datasets, "load_dataset", fail)
        with pytest.raises(DataError, match=r"`a/b` is no file or folder here.*on the Hub.*`data.root`") as found:
            read("a/b")
        assert "\n" not in str(found.value)

    def test_a_table_that_went_away(self, parquet, monkeypatch):
        source = read(parquet).records[0].image
        gone = source.__class__(source.name, source.file + ".gone", 0, "image", "0")
        with pytest.raises(DataError, match=r"\.gone` cannot be read"):
            gone.read()


@pytest.fixture
def stream(tmp_path):
    """40 pictures in two files of five row groups each; ids in another order than the rows."""
    folder = tmp_path / "stream"
    folder.mkdir()
    for file in range(2):
        numbers = range(20 * file, 20 * file + 20)
        rows = [row(number % 9) | {"id": f"p{(7 * number) % 40:02d}", "year": number} for number in numbers]
        datasets.Dataset.from_list(rows, features=FEATURES).to_parquet(folder / f"train-{file}.parquet", batch_size=4)
    return folder


@pytest.fixture
def groups_read(monkeypatch):
    read_groups = []
    original = pq.ParquetFile.read_row_group

    def counted(self, group, **options):
        read_groups.append((options["columns"][0], group))
        return original(self, group, **options)

    monkeypatch.setattr(pq.ParquetFile, "read_row_group", counted)
    hf_stream._columns.clear()
    return read_groups


class TestStream:
    def test_it_is_the_same_data_set_without_a_copy(self, stream, tmp_path):
        options = {"attributes": ["site", "kind"], "streaming": 8}
        streamed, table = read(stream, **options), read(stream, **options | {"streaming": False})
        copied = set((tmp_path / "cache").rglob("*.arrow"))
        read(stream, **options)
        assert set((tmp_path / "cache").rglob("*.arrow")) == copied
        for one, other in zip(streamed.records, table.records, strict=True):
            assert (one.id, one.attributes, one.image.name) == (other.id, other.attributes, other.image.name)
            assert one.image.read() == other.image.read()
            assert one.mask.read() == other.mask.read()
        assert (streamed.shuffle_buffer, table.shuffle_buffer) == (8, None)
        assert read(stream, streaming=True).shuffle_buffer == 1000
        assert {record.block for record in streamed.records} == set(range(10))
        assert pickle.loads(pickle.dumps(streamed)) == streamed

    def test_parts_and_numbered_rows(self, parts):
        for options in ({}, {"split": "train"}, {"id_column": None}):
            one, other = (read(parts, streaming=streaming, **options) for streaming in (2, False))
            assert [(r.id, r.split, r.image.read()) for r in one.records] == [
                (r.id, r.split, r.image.read()) for r in other.records
            ]
        assert [record.block for record in read(parts, streaming=2).records] == [2, 2, 1, 0, 0]

    def test_the_first_pass_and_an_epoch_read_each_block_once(self, stream, groups_read):
        catalogue = read(stream, streaming=8)
        found = scan(catalogue, None, 0)
        assert len(groups_read) == 2 * 10
        plain = scan(read(stream), None, 0)
        assert (found.ids, found.content, found.mask_content) == (plain.ids, plain.content, plain.mask_content)
        assert (found.class_counts == plain.class_counts).all()
        blocks = np.array([record.block for record in catalogue.records])
        for epoch in range(3):
            del groups_read[:]
            hf_stream._columns.clear()
            order = BatchOrder(40, 4, shuffle=True, seed=0, blocks=blocks, buffer=8)
            order.set_epoch(epoch)
            for batch in order:
                for _, index in batch:
                    catalogue.records[index].image.read()
                    catalogue.records[index].mask.read()
            assert len(groups_read) == 2 * 10
            assert len(hf_stream._columns) <= 2 * (2 + 2)

    def test_by_a_url_and_in_a_forked_worker(self, parquet):
        memory = fsspec.filesystem("memory")
        memory.pipe("/art.parquet", parquet.read_bytes())
        (length,) = {len(read(parquet).records)}
        assert hf_stream.rows_of_groups("memory://art.parquet") == [length]
        stamp = hf_stream.fingerprint_of("memory://art.parquet")
        source = hf_stream.BlockSource("x", "memory://art.parquet", 0, 2, "image", stamp, 4)
        assert source.read() == row(2)["image"]["bytes"]
        with multiprocessing.get_context("fork").Pool(1) as pool:
            assert pool.apply(source.read) == source.read()
        with pytest.raises(
            DataError, match=r"`memory://none.parquet` cannot be read: .*download it and set `data.root`"
        ):
            hf_stream.BlockSource("x", "memory://none.parquet", 0, 2, "image", "", 4).read()

    def test_a_file_that_changes_under_a_run(self, stream):
        source = read(stream, streaming=8).records[0].image
        (stream / "train-0.parquet").write_bytes((stream / "train-1.parquet").read_bytes())
        hf_stream._columns.clear()
        with pytest.raises(DataError, match=r"has changed since the run read it first\. Put the old file back"):
            source.read()

    def test_what_is_no_parquet_is_refused_with_a_way_out(self, tmp_path, parquet, parts):
        table([0]).save_to_disk(str(tmp_path / "saved"))
        with pytest.raises(DataError, match=r"reads parquet files\. Found .*save_to_disk.*streaming=false"):
            read(tmp_path / "saved", streaming=True)
        read(tmp_path / "saved", streaming=False)
        (tmp_path / "csv").mkdir()
        (tmp_path / "csv" / "a.csv").write_text("id,image\n1,2\n")
        with pytest.raises(DataError, match=r"reads parquet files\. Found `.*a\.csv`"):
            read(tmp_path / "csv", streaming=True)
        with pytest.raises(DataError, match=r"should be one of \['train', 'validation'\]\. Found `dev`"):
            read(parts, split="dev", streaming=True)
        with pytest.raises(DataError, match="should have the columns"):
            read_hub(parquet, "image", "masks", ["a", "b"], streaming=True)
        parquet.write_bytes(b"PAR1 no table")
        with pytest.raises(DataError, match=r"art\.parquet` cannot be read: "):
            read(parquet, streaming=True)


def test_nothing_is_printed_where_there_is_no_terminal(parquet, capfd):
    read(parquet)
    assert capfd.readouterr() == ("", "")
    assert not datasets.are_progress_bars_disabled()
