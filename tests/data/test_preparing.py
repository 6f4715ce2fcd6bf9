"""A corpus becomes token files: the same bytes from any encoding, format, grouping or cut."""

import csv
import gzip
import hashlib
import json
import logging
import math
import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt.artifacts.records.base import read_record, write_record
from nanogpt.artifacts.records.groups import GroupCounts, Plan
from nanogpt.config.loading import load as load_config
from nanogpt.config.schema import Corpus, Dataset
from nanogpt.data import encodings, pieces, play, streams
from nanogpt.data.batches import load
from nanogpt.data.byte_pairs import gpt2_tokenizer, train_byte_pairs
from nanogpt.data.pieces import Group
from nanogpt.data.preparing import count, encode, plan_dataset, prepare
from nanogpt.data.saved_tokenizers import load_tokenizer
from nanogpt.data.tokenizers import ByteTokenizer, char_tokenizer
from nanogpt.errors import UserError

ROOT = Path(__file__).resolve().parents[2]

MIRROR = Path(os.environ.get("NANOGPT_MIRROR") or "nowhere")
GPT2_FILES = MIRROR / "openaipublic.blob.core.windows.net/gpt-2/encodings/main"
PLAY_FILE = (
    MIRROR / "raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)
needs_gpt2 = pytest.mark.skipif(
    not (GPT2_FILES / "vocab.bpe").is_file(),
    reason="GPT-2's file of merges is not there: NANOGPT_MIRROR is not set, or lacks it",
)
needs_play = pytest.mark.skipif(
    not PLAY_FILE.is_file(),
    reason="Tiny Shakespeare is not there: NANOGPT_MIRROR is not set, or lacks it",
)
gpt2_only = [pytest.mark.mirror, needs_gpt2]

TOKENIZERS = ["char", "byte", "bpe", pytest.param("gpt2", marks=gpt2_only)]

TEXT = "Ein Märchen: »€ 5« 😀.\n" * 10

FRENCH = (
    "Elle m'a dit qu'il avait neigé pendant la nuit et que les élèves étaient restés chez eux. Le "
    "maître, très fâché, a écrit au préfet : « Ça suffit ! » Personne n'a jamais su la réponse.\n"
)
RUSSIAN = (
    "Вечером мы вышли на воздух и долго смотрели, как уходит солнце. Рыбаки молча собирали сети, "
    "дети играли рядом, старая лодка тихо качалась возле причала. Потом стало холодно, и мы "
    "пошли домой пить чай, варить кашу и слушать радио.\n"
)
JAPANESE = (
    "きのうは朝から雨が降っていたので、家で本を読みました。夕方になって雨がやみ、友だちと駅前の"
    "喫茶店へ行きました。コーヒーを飲みながら、夏休みの旅行の計画を立てました。\n"
)
SIMPLIFIED = (
    "昨天下午我们一起去图书馆看书，外面下着小雨。晚上回家以后，妈妈做了一桌好菜，大家都吃得很高兴。"  # noqa: RUF001
    "弟弟说他明天还要去学校参加足球比赛。\n"
)
TRADITIONAL = (
    "昨天下午我們一起去圖書館看書，外面下著小雨。晚上回家以後，媽媽做了一桌好菜，大家都吃得很高興。"  # noqa: RUF001
    "弟弟說他明天還要去學校參加足球比賽。\n"
)


def numbered(paragraph, times=12):
    """A paragraph again and again, each time with a number before it."""
    return "".join(f"{number}. {paragraph}" for number in range(times))


# Text, encoding, and the names that it is read by.
ENCODED = {
    "utf-8": (numbered(FRENCH + RUSSIAN + JAPANESE), "utf-8", ["auto", "utf-8"]),
    "utf-8 with a mark": (numbered(FRENCH + JAPANESE), "utf-8-sig", ["auto", "utf-8-sig"]),
    "utf-16": (numbered(RUSSIAN + JAPANESE), "utf-16", ["auto", "utf-16"]),
    "cp1252": (numbered(FRENCH + "Prix : 5 €.\n"), "cp1252", ["auto", "cp1252"]),
    "latin-1": (numbered(FRENCH), "latin-1", ["auto", "latin-1"]),
    "shift_jis": (numbered(JAPANESE), "shift_jis", ["auto", "shift_jis"]),
    "gb18030": (numbered(SIMPLIFIED), "gb18030", ["auto", "gb18030"]),
    "big5": (numbered(TRADITIONAL), "big5", ["auto", "big5"]),
    "koi8_r": (numbered(RUSSIAN), "koi8_r", ["auto", "koi8_r"]),
}


@pytest.fixture(scope="module")
def given_file(tmp_path_factory):
    """A function: a dataset's tokenizer in, the file that it is taken from out, if there is one."""
    directory = tmp_path_factory.mktemp("gpt2")

    def given_to(tokenizer):
        if tokenizer != "gpt2":
            return None
        path = directory / "tokenizer.json"
        if not path.exists():
            gpt2_tokenizer(GPT2_FILES / "vocab.bpe").save(path)
        return path

    return given_to


def write_texts(directory, texts, encoding="utf-8"):
    """Each text as a file; their paths."""
    directory.mkdir(exist_ok=True)
    paths = [directory / f"{number:04d}.txt" for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_bytes(text.encode(encoding))
    return paths


def prepare_files(paths, directory, given=None, threads=1, corpus=None, **dataset):
    """Prepare some files as one dataset; its directory."""
    corpus = Corpus(files=list(map(str, paths)), **(corpus or {}))
    dataset = Dataset(**dataset)
    prepare(paths, corpus, dataset, directory, tokenizer_file=given, threads=threads)
    return directory


def prepare_text(directory, text, **dataset):
    """Prepare a text written to a file in `directory`; the dataset's directory."""
    (directory / "text.txt").write_bytes(text.encode())
    return prepare_files([directory / "text.txt"], directory / "dataset", **dataset)


def prepare_by_groups(groups, directory, given=None, threads=1, **dataset):
    """Prepare groups of files as the workflow does, step by step through JSON; its directory."""
    paths = [path for group in groups for path in group]
    corpus, dataset = Corpus(files=list(map(str, paths))), Dataset(**dataset)
    jobs = directory / "groups"
    directories = [jobs / str(number) for number in range(len(groups))]
    for group, place in zip(groups, directories, strict=True):
        write_record(place / "counts.json", count(group, corpus, threads))
    counts = [read_record(place / "counts.json", GroupCounts) for place in directories]
    plan, tokenizer = plan_dataset(counts, corpus, dataset, given, threads)
    write_record(jobs / "plan.json", plan)
    tokenizer.save(jobs / "tokenizer.json")
    for number, place in enumerate(directories):
        plan = read_record(jobs / "plan.json", Plan)
        tokenizer = load_tokenizer(jobs / "tokenizer.json")
        group = Group(counts[number], plan, number, corpus, dataset)
        write_record(place / "totals.json", encode(group, tokenizer, place, threads))
    made = directory / "made"
    prepare(paths, corpus, dataset, made, plan_file=jobs / "plan.json")
    return made


def contents(directory):
    """The bytes of each file of a directory, hidden ones included."""
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def tokens_of(directory):
    files = contents(directory)
    return files["train.bin"], files["val.bin"]


def documents(directory, split):
    """The documents of a split, in order, of a dataset with a separator that is in none of them."""
    files = load(directory)
    text = files.tokenizer.decode(getattr(files, split))
    assert text.endswith("\x1e")
    return text.removesuffix("\x1e").split("\x1e")


def made_up(n_documents, seed=0):
    """Documents with all that is hard for a format: quotes, commas, line breaks, scripts."""
    words = [
        *(
            "the",
            'quick "brown"',
            "fox,",
            "über",
            "den",
            "Zaun;",
            "雨が降る。",
            "😀",
            "don't",
            "\\n",
        ),
        *('{"a": 1}', "line\nbreak", "\r\n", "two  blanks", "\t", "2048", "\u2028", "\u00a0", "''"),
        *("<|endoftext|>", "a\rb", ""),
    ]
    source = random.Random(seed)
    return [
        f"{number} " + " ".join(source.choices(words, k=source.randint(1, 30)))
        for number in range(n_documents)
    ]


# --- Files ----------------------------------------------------------------------------------


def test_a_dataset_is_four_files(tmp_path):
    made = prepare_text(tmp_path, TEXT)
    assert set(contents(made)) == {"train.bin", "val.bin", "tokenizer.json", "meta.json"}


@pytest.mark.parametrize("val_ratio", [0.1, 0.2, 0.05, 0.5, 0.3])
@pytest.mark.parametrize("n_characters", [100, 101, 109, 997])
def test_the_tail_is_held_out_where_nanogpt_cuts(tmp_path, n_characters, val_ratio):
    text = ("0123456789" * 100)[:n_characters]
    files = load(prepare_text(tmp_path, text, val_ratio=val_ratio))
    cut = int(n_characters * (1 - val_ratio))
    assert files.tokenizer.decode(files.train) == text[:cut]
    assert files.tokenizer.decode(files.val) == text[cut:]


def test_token_files_are_little_endian_ids_that_numpy_reads_as_nanogpt_does(tmp_path):
    made = prepare_text(tmp_path, TEXT)
    symbols = sorted(set(TEXT))
    train = TEXT[: int(len(TEXT) * 0.9)]
    wanted = [symbols.index(c) for c in train]
    assert np.fromfile(made / "train.bin", dtype=np.uint16).tolist() == wanted
    assert np.memmap(made / "train.bin", dtype=np.uint16, mode="r").tolist() == wanted
    assert (made / "train.bin").read_bytes() == b"".join(i.to_bytes(2, "little") for i in wanted)


def test_many_symbols_are_four_little_endian_bytes_each(tmp_path):
    symbols = [chr(code) for code in range(0x10000, 0x10000 + 65_536)]
    made = prepare_text(tmp_path, "".join(symbols), val_ratio=0.5)
    assert json.loads((made / "meta.json").read_text())["dtype"] == "uint32"
    assert (made / "val.bin").read_bytes()[:4] == (32_768).to_bytes(4, "little")
    assert load(made).val[-1] == 65_535


def test_the_vocabulary_is_that_of_the_whole_text(tmp_path):
    made = prepare_text(tmp_path, "a" * 99 + "z")
    assert load(made).tokenizer == char_tokenizer("az")


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
def test_each_tokenizer_gives_back_the_splits(tmp_path, tokenizer, given_file):
    text = numbered(FRENCH + JAPANESE)
    made = prepare_text(
        tmp_path, text, tokenizer=tokenizer, vocab_size=400, given=given_file(tokenizer)
    )
    files = load(made)
    cut = int(len(text) * 0.9)
    assert files.tokenizer.decode(files.train) == text[:cut]
    assert files.tokenizer.decode(files.val) == text[cut:]
    assert files.meta.vocab_size == files.tokenizer.vocab_size
    kinds = {"char": len(set(text)), "byte": 256, "bpe": 400, "gpt2": 50257}
    assert files.tokenizer.vocab_size == kinds[tokenizer]


def test_byte_pairs_are_trained_on_the_training_split_alone(tmp_path):
    text = "abab " * 180 + "cdcd " * 20
    tokens = load(prepare_text(tmp_path, text, tokenizer="bpe")).tokenizer.tokens
    assert b"abab" in tokens
    assert not any(b"cd" in token for token in tokens)


def test_byte_pairs_are_those_that_training_on_the_whole_split_gives(tmp_path, monkeypatch):
    text = numbered(FRENCH + JAPANESE)
    wanted = train_byte_pairs([text[: int(len(text) * 0.9)]], 400, 1)
    assert wanted.vocab_size == 400
    monkeypatch.setattr(encodings, "PIECE", 100)
    made = prepare_text(tmp_path, text, tokenizer="bpe", vocab_size=400)
    assert load(made).tokenizer == wanted


def test_fewer_byte_pairs_than_asked_for_are_told(tmp_path, caplog):
    with caplog.at_level(logging.WARNING, "nanogpt"):
        made = prepare_text(tmp_path, "abab " * 50, tokenizer="bpe", vocab_size=5000)
    size = load(made).tokenizer.vocab_size
    assert 257 < size < 300
    assert f"byte pairs for {size} tokens only, not for vocab_size 5000" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, "nanogpt"):
        prepare_text(tmp_path, numbered(FRENCH), tokenizer="bpe", vocab_size=300)
    assert caplog.text == ""


def test_the_builtin_play_has_the_entropy_of_what_evaluation_predicts(tmp_path):
    corpus = Corpus(builtin="play", n_characters=5000, seed=7)
    text = play.write(5000, 7)
    (tmp_path / "input.txt").write_text(text)
    prepare([tmp_path / "input.txt"], corpus, Dataset(), tmp_path / "made")
    # Bits of the whole text less those of what is known before the first prediction.
    known = text[: int(5000 * 0.9) + 1]
    bits = play.surprisal(text).sum() - play.surprisal(known).sum()
    found = load(tmp_path / "made").meta.source.val_bits_per_byte
    assert found == pytest.approx(bits / (5000 - len(known)), rel=1e-9)
    assert 0.1 < found < 5


def test_no_entropy_is_claimed_for_a_text_of_the_user(tmp_path):
    assert load(prepare_text(tmp_path, TEXT)).meta.source is None
    assert "source" not in json.loads((tmp_path / "dataset/meta.json").read_text())


# --- The real text --------------------------------------------------------------------------


@pytest.mark.mirror
@needs_play
def test_tiny_shakespeare_has_nanogpts_token_files(tmp_path):
    config = load_config(yaml.safe_load((ROOT / "config.yaml").read_text(encoding="utf-8")))
    corpus, dataset = config.corpora["shakespeare"], config.datasets["shakespeare_char"]
    prepare([PLAY_FILE], corpus, dataset, tmp_path)
    files = load(tmp_path)
    assert files.meta.vocab_size == files.tokenizer.vocab_size == 65
    assert len(files.train) == files.meta.train.n_tokens == 1_003_854
    assert len(files.val) == files.meta.val.n_tokens == 111_540
    text = PLAY_FILE.read_bytes().decode("ascii")
    id_of = {symbol: number for number, symbol in enumerate(sorted(set(text)))}
    ids = np.array([id_of[c] for c in text], dtype=np.uint16)
    assert np.fromfile(tmp_path / "train.bin", dtype=np.uint16).tolist() == ids[:1_003_854].tolist()
    assert np.fromfile(tmp_path / "val.bin", dtype=np.uint16).tolist() == ids[1_003_854:].tolist()


@pytest.mark.mirror
@needs_play
@needs_gpt2
@pytest.mark.parametrize("threads", [1, 4])
def test_tiny_shakespeare_has_nanogpts_tokens_of_gpt2(tmp_path, given_file, reference, threads):
    given = given_file("gpt2")
    prepare_files([PLAY_FILE], tmp_path, given, threads, tokenizer="gpt2")
    text = PLAY_FILE.read_bytes().decode("ascii")
    cut = int(len(text) * 0.9)
    for split, part, n_tokens in (("train", text[:cut], 301_966), ("val", text[cut:], 36_059)):
        tokens = np.fromfile(tmp_path / f"{split}.bin", dtype=np.uint16)
        assert len(tokens) == n_tokens
        assert tokens.tolist() == reference.encode_ordinary(part)


# --- Encodings ------------------------------------------------------------------------------


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("name", ENCODED)
def test_a_text_gives_the_same_tokens_in_any_encoding(tmp_path, name, tokenizer, given_file):
    text, encoding, named = ENCODED[name]
    options = {"tokenizer": tokenizer, "vocab_size": 300, "given": given_file(tokenizer)}
    twin = write_texts(tmp_path / "twin", [text])
    wanted = tokens_of(prepare_files(twin, tmp_path / "wanted", **options))
    assert len(wanted[0]) > 1000
    path = write_texts(tmp_path / "encoded", [text], encoding)
    assert name == "utf-8" or path[0].read_bytes() != twin[0].read_bytes()
    for read_as in named:
        made = prepare_files(path, tmp_path / read_as, corpus={"encoding": read_as}, **options)
        assert tokens_of(made) == wanted, read_as


def test_the_files_of_a_corpus_may_be_in_different_encodings(tmp_path):
    texts = [text for text, _, _ in ENCODED.values()]
    wanted = prepare_files(write_texts(tmp_path / "twins", texts), tmp_path / "wanted")
    paths = []
    for number, (text, encoding, _) in enumerate(ENCODED.values()):
        paths += write_texts(tmp_path / str(number), [text], encoding)
    made = prepare_files(paths, tmp_path / "made")
    assert tokens_of(made) == tokens_of(wanted)
    decided = [file.encoding for file in load(made).meta.files]
    # All that is in Latin-1 here is the same in cp1252.
    assert decided[:5] == ["utf-8", "utf-8-sig", "utf-16", "cp1252", "cp1252"]
    assert decided[8] == "koi8-r"
    # Guesses, of which a wider encoding may be one as well.
    assert decided[5] in ("shift_jis", "cp932")
    assert decided[6] in ("gb18030", "gbk", "gb2312")
    assert decided[7] in ("big5", "big5hkscs", "cp950")


# --- Many documents -------------------------------------------------------------------------


@pytest.mark.parametrize("tokenizer", ["char", "byte"])
@pytest.mark.parametrize("separator", ["\n", "", "\n-- é --\n"])
def test_characters_and_bytes_have_the_separator_after_each_document(
    tmp_path, tokenizer, separator
):
    paths = write_texts(tmp_path / "texts", ["one", "two, ", "three"])
    options = {"tokenizer": tokenizer, "separator": separator, "val_ratio": 0.3}
    files = load(prepare_files(paths, tmp_path / "made", **options))
    assert files.tokenizer.decode(files.train) == f"one{separator}two, {separator}t"
    assert files.tokenizer.decode(files.val) == f"hree{separator}"


@pytest.mark.parametrize("tokenizer", ["bpe", pytest.param("gpt2", marks=gpt2_only)])
def test_byte_pairs_have_the_end_of_a_text_after_each_document(tmp_path, tokenizer, given_file):
    texts = ["one two", "three<|endoftext|>", "four five six"]
    paths = write_texts(tmp_path / "texts", texts)
    options = {"tokenizer": tokenizer, "val_ratio": 0.45, "given": given_file(tokenizer)}
    files = load(prepare_files(paths, tmp_path / "made", **options))
    end = files.tokenizer.vocab_size - 1
    tokens = [*files.train.tolist(), *files.val.tolist()]
    ends = [place for place, token in enumerate(tokens) if token == end]
    found = [
        files.tokenizer.decode(tokens[start + 1 : place])
        for start, place in zip([-1, *ends], ends, strict=False)
    ]
    assert found == texts
    assert tokens[-1] == end


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("kind", ["txt", "jsonl"])
def test_a_single_document_has_nothing_after_it(tmp_path, tokenizer, kind, given_file):
    path = tmp_path / f"one.{kind}"
    path.write_text(TEXT if kind == "txt" else json.dumps({"text": TEXT}), encoding="utf-8")
    options = {"tokenizer": tokenizer, "separator": "#", "given": given_file(tokenizer)}
    files = load(prepare_files([path], tmp_path / "made", **options))
    whole = files.tokenizer.decode(files.train) + files.tokenizer.decode(files.val)
    assert whole == TEXT
    assert files.meta.train.n_documents + files.meta.val.n_documents == 1


def test_the_separator_is_in_the_vocabulary_only_where_there_are_several_documents(tmp_path):
    paths = write_texts(tmp_path / "texts", ["ab" * 20, "bc" * 20])
    several = load(prepare_files(paths, tmp_path / "several", separator="#"))
    assert several.tokenizer == char_tokenizer("abc#")
    one = load(prepare_files(paths[:1], tmp_path / "one", separator="#"))
    assert one.tokenizer == char_tokenizer("ab")


@pytest.mark.parametrize(
    ("texts", "val_ratio"),
    [
        (["0123456789"] * 7, 0.1),
        (["0123456789"] * 10, 0.3),  # between two documents
        (["abc", "d" * 200, "e"], 0.5),
        (["é", "😀😀", "漢字" * 50, "x"], 0.25),
        (["a", "b", "c", "d", "e", "f"], 0.4),
    ],
)
@pytest.mark.parametrize("group_size", [1, 2, 100])
@pytest.mark.parametrize("piece", [3, 1 << 18])
def test_a_split_by_position_cuts_at_one_character_across_files_and_groups(
    tmp_path, monkeypatch, texts, val_ratio, group_size, piece
):
    monkeypatch.setattr(encodings, "PIECE", piece)
    paths = write_texts(tmp_path / "texts", texts)
    groups = [paths[start : start + group_size] for start in range(0, len(paths), group_size)]
    files = load(prepare_by_groups(groups, tmp_path, val_ratio=val_ratio, separator="\x1e"))
    train, val = files.tokenizer.decode(files.train), files.tokenizer.decode(files.val)
    whole = "".join(texts)
    cut = int(len(whole) * (1 - val_ratio))
    assert train.replace("\x1e", "") == whole[:cut]
    assert val.replace("\x1e", "") == whole[cut:]
    # A document that ends where the text is cut has its separator with it.
    assert train + val == "".join(f"{text}\x1e" for text in texts)
    assert not val.startswith("\x1e")
    assert files.meta.train.n_characters == cut
    assert files.meta.val.n_characters == len(whole) - cut


@pytest.mark.parametrize(("n_documents", "split"), [(99, "position"), (100, "document")])
def test_auto_splits_by_document_from_a_hundred_documents_on(tmp_path, n_documents, split):
    texts = made_up(n_documents)
    paths = write_texts(tmp_path / "texts", texts)
    auto = prepare_files(paths, tmp_path / "auto")
    assert load(auto).meta.split == split
    assert contents(auto) == contents(prepare_files(paths, tmp_path / "named", split=split))
    rows = tmp_path / "rows.jsonl"
    rows.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    assert tokens_of(prepare_files([rows], tmp_path / "rows")) == tokens_of(auto)


def test_by_document_each_is_whole_in_one_split_and_in_its_order(tmp_path):
    texts = made_up(200)
    paths = write_texts(tmp_path / "texts", texts)
    made = prepare_files(paths, tmp_path / "made", split="document", separator="\x1e")
    train, val = documents(made, "train"), documents(made, "val")
    assert sorted(train + val) == sorted(texts)
    assert train == [text for text in texts if text in set(train)]
    assert val == [text for text in texts if text in set(val)]
    assert load(made).meta.train.n_documents == len(train)
    assert load(made).meta.val.n_documents == len(val) > 0


def test_more_documents_move_none_to_the_other_split(tmp_path):
    texts = made_up(300)
    paths = write_texts(tmp_path / "texts", texts)
    options = {"split": "document", "separator": "\x1e"}
    few = prepare_files(paths[100:200], tmp_path / "few", **options)
    more = prepare_files(paths[::-1], tmp_path / "more", **options)
    for split in ("train", "val"):
        assert set(documents(few, split)) <= set(documents(more, split))


def test_a_document_that_stands_twice_is_twice_in_the_same_split(tmp_path):
    texts = made_up(100)
    paths = write_texts(tmp_path / "texts", texts * 2)
    made = prepare_files(paths, tmp_path / "made", split="document", separator="\x1e")
    assert not set(documents(made, "train")) & set(documents(made, "val"))


@pytest.mark.parametrize("val_ratio", [0.02, 0.1, 0.5])
def test_the_share_of_documents_held_out_is_near_the_one_asked_for(tmp_path, val_ratio):
    texts = made_up(3000)
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    meta = load(prepare_files([path], tmp_path / "made", val_ratio=val_ratio)).meta
    assert meta.train.n_documents + meta.val.n_documents == 3000
    deviation = math.sqrt(3000 * val_ratio * (1 - val_ratio))
    assert abs(meta.val.n_documents - 3000 * val_ratio) < 4 * deviation


def write_rows(path, texts):
    """Texts as the rows of a table, in the format that the path's suffix says."""
    import pyarrow
    from pyarrow import parquet

    lines = [json.dumps({"id": n, "text": text}) + "\n" for n, text in enumerate(texts)]
    if path.suffix == ".parquet":
        table = pyarrow.table({"id": list(range(len(texts))), "text": texts})
        parquet.write_table(table, path, row_group_size=50)
    elif path.suffix == ".csv":
        with open(path, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
            writer.writerow(["id", "text"])
            writer.writerows(enumerate(texts))
    elif path.suffix == ".gz":
        path.write_bytes(gzip.compress("".join(lines).encode()))
    else:
        path.write_text("".join(lines), encoding="utf-8")


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("split", ["document", "position"])
def test_documents_give_the_same_tokens_in_any_format(tmp_path, tokenizer, split, given_file):
    texts = made_up(150)
    options = {"tokenizer": tokenizer, "vocab_size": 300, "split": split}
    options["given"] = given_file(tokenizer)
    wanted = prepare_files(write_texts(tmp_path / "texts", texts), tmp_path / "wanted", **options)
    in_utf_16 = write_texts(tmp_path / "utf16", texts, "utf-16")
    made = {"utf-16": prepare_files(in_utf_16, tmp_path / "in_utf_16", **options)}
    for name in ("rows.jsonl", "rows.jsonl.gz", "rows.parquet", "rows.csv"):
        write_rows(tmp_path / name, texts)
        made[name] = prepare_files([tmp_path / name], tmp_path / f"of_{name}", **options)
    for name, directory in made.items():
        assert tokens_of(directory) == tokens_of(wanted), name
        assert contents(directory)["tokenizer.json"] == contents(wanted)["tokenizer.json"], name


def test_a_table_of_one_row_is_in_the_split_of_the_same_text_as_a_file(tmp_path):
    # Of a file of one document, the hash was found while it was counted.
    texts = made_up(120)
    rows = []
    for number, text in enumerate(texts):
        rows.append(tmp_path / f"{number}.jsonl")
        write_rows(rows[-1], [text])
    wanted = prepare_files(write_texts(tmp_path / "texts", texts), tmp_path / "wanted")
    assert load(wanted).meta.split == "document"
    assert tokens_of(prepare_files(rows, tmp_path / "rows")) == tokens_of(wanted)


@pytest.mark.mirror
@needs_gpt2
def test_parquet_files_of_web_pages_become_gpt2_s_tokens(tmp_path, given_file, reference):
    texts = made_up(9000, seed=1)
    paths = [tmp_path / f"train-{number:05d}.parquet" for number in range(3)]
    for number, path in enumerate(paths):
        write_rows(path, texts[3000 * number : 3000 * (number + 1)])
    options = {"tokenizer": "gpt2", "val_ratio": 0.0005, "split": "document", "threads": 2}
    files = load(prepare_files(paths, tmp_path / "made", given_file("gpt2"), **options))
    assert files.train.dtype == np.uint16
    assert 1 <= files.meta.val.n_documents <= 14
    assert files.meta.train.n_documents + files.meta.val.n_documents == 9000

    def split_up(tokens):
        ends = np.flatnonzero(tokens == 50256)
        assert ends[-1] == len(tokens) - 1
        return [part.tolist()[:-1] for part in np.split(tokens, ends + 1)[:-1]]

    encoded = [reference.encode_ordinary(text) for text in texts]
    held_out = split_up(files.val)
    assert held_out == [tokens for tokens in encoded if tokens in held_out]
    assert split_up(files.train) == [tokens for tokens in encoded if tokens not in held_out]


# --- Pieces, groups and threads -------------------------------------------------------------


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("piece", [1, 7, 100])
def test_where_pieces_and_batches_are_cut_changes_no_byte(
    tmp_path, monkeypatch, tokenizer, piece, given_file
):
    text = numbered(FRENCH + JAPANESE, 3) + "   \n\n\t\t end's  \u3000\u3000 \r\n\r\n  "
    paths = write_texts(tmp_path / "texts", [text, "second, ", "third  \n"])
    options = {"tokenizer": tokenizer, "vocab_size": 300, "given": given_file(tokenizer)}
    wanted = contents(prepare_files(paths, tmp_path / "wanted", **options))
    monkeypatch.setattr(encodings, "PIECE", piece)
    monkeypatch.setattr(streams, "BATCH", 2 * piece)
    assert contents(prepare_files(paths, tmp_path / "made", threads=2, **options)) == wanted


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff\x1e")).map(
            lambda text: f"{text} long enough ,。"
        ),
        min_size=2,
        max_size=6,
    ),
    st.integers(1, 9),
    st.floats(0.1, 0.9),
    st.sampled_from(["byte", "char"]),
)
def test_any_texts_come_back_whatever_the_pieces(
    tmp_path_factory, texts, piece, val_ratio, tokenizer
):
    root = tmp_path_factory.mktemp("any")
    paths = write_texts(root / "texts", texts)
    options = {"tokenizer": tokenizer, "val_ratio": val_ratio, "separator": "\x1e"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encodings, "PIECE", piece)
        patch.setattr(streams, "BATCH", piece)
        files = load(prepare_files(paths, root / "made", **options))
    data = files.tokenizer.to_bytes(files.train) + files.tokenizer.to_bytes(files.val)
    assert data.decode() == "".join(f"{text}\x1e" for text in texts)


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("split", ["document", "position"])
def test_the_bytes_do_not_depend_on_groups_or_threads(tmp_path, tokenizer, split, given_file):
    texts = made_up(60)
    paths = write_texts(tmp_path / "texts", texts[:9])
    for number in range(3):
        paths.append(tmp_path / f"rows{number}.jsonl")
        write_rows(paths[-1], texts[9 + 17 * number : 26 + 17 * number])
    given = given_file(tokenizer)
    options = {"tokenizer": tokenizer, "vocab_size": 300, "split": split, "val_ratio": 0.3}
    wanted = contents(prepare_files(paths, tmp_path / "wanted", given, **options))
    for threads in (2, 4):
        made = prepare_files(paths, tmp_path / f"threads{threads}", given, threads, **options)
        assert contents(made) == wanted
    groupings = {
        "one": [paths],
        "halves": [paths[:6], paths[6:]],
        "uneven": [paths[:1], paths[1:8], paths[8:10], paths[10:]],
        "each": [[path] for path in paths],
    }
    for name, groups in groupings.items():
        made = prepare_by_groups(groups, tmp_path / name, given, threads=2, **options)
        assert contents(made) == wanted, name


def test_byte_pairs_are_the_same_with_any_number_of_threads(tmp_path):
    # Processes of their own, as the training library's threads start but once.
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from nanogpt.config.schema import Corpus, Dataset\n"
        "from nanogpt.data.preparing import prepare\n"
        "path, directory, threads = sys.argv[1:]\n"
        "dataset = Dataset(tokenizer='bpe', vocab_size=500)\n"
        "corpus = Corpus(files=[path])\n"
        "prepare([Path(path)], corpus, dataset, Path(directory), threads=int(threads))\n"
    )
    write_rows(tmp_path / "rows.jsonl", made_up(2000))
    for threads in ("1", "2", "4"):
        subprocess.run(
            [sys.executable, "-c", script, tmp_path / "rows.jsonl", tmp_path / threads, threads],
            cwd=ROOT,
            check=True,
        )
    assert contents(tmp_path / "1") == contents(tmp_path / "2") == contents(tmp_path / "4")


# --- meta.json ------------------------------------------------------------------------------


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("tokenizer", TOKENIZERS)
@pytest.mark.parametrize("split", ["document", "position"])
def test_meta_counts_what_is_in_the_files_and_in_the_splits(tmp_path, tokenizer, split, given_file):
    texts = made_up(80)
    paths = [*write_texts(tmp_path / "texts", texts[:40]), tmp_path / "rows.csv"]
    write_rows(paths[-1], texts[40:])
    options = {"tokenizer": tokenizer, "split": split, "separator": "\n\n", "val_ratio": 0.3}
    made = prepare_files(paths, tmp_path / "made", given_file(tokenizer), **options)
    files = load(made)
    meta = files.meta
    assert meta.tokenizer == tokenizer
    assert meta.split == split
    assert meta.dtype == "uint16"
    assert meta.vocab_size == files.tokenizer.vocab_size
    totals = {
        "n_documents": len(texts),
        "n_characters": sum(map(len, texts)),
        "n_bytes": sum(len(text.encode()) for text in texts),
    }
    for name, total in totals.items():
        assert getattr(meta.train, name) + getattr(meta.val, name) == total
        assert sum(getattr(file, name) for file in meta.files) == total
    for name in ("train", "val"):
        tokens = getattr(files, name)
        counts = getattr(meta, name)
        assert counts.n_tokens == len(tokens)
        separators = 2 * counts.n_documents if tokenizer in ("char", "byte") else 0
        assert files.tokenizer.token_bytes[tokens].sum() == counts.n_bytes + separators
        if tokenizer == "char":
            assert counts.n_tokens == counts.n_characters + separators
    first = meta.files[0]
    assert first.path == str(paths[0])
    assert first.n_documents == 1
    assert first.n_characters == len(texts[0])
    assert first.n_bytes == len(texts[0].encode())


def test_meta_has_the_digests_of_all_files(tmp_path):
    paths = write_texts(tmp_path / "texts", made_up(5))
    made = prepare_files(paths, tmp_path / "made")
    meta = load(made).meta
    assert [(file.path, file.sha256) for file in meta.files] == [
        (str(path), sha256(path)) for path in paths
    ]
    assert meta.tokenizer_sha256 == sha256(made / "tokenizer.json")
    assert meta.train.sha256 == sha256(made / "train.bin")
    assert meta.val.sha256 == sha256(made / "val.bin")


def test_meta_says_by_its_python_name_which_encoding_was_read(tmp_path):
    path = write_texts(tmp_path / "texts", [FRENCH], "latin-1")
    made = prepare_files(path, tmp_path / "made", corpus={"encoding": "Latin-1"})
    assert load(made).meta.files[0].encoding == "iso8859-1"


def test_the_same_text_gives_the_same_bytes_again(tmp_path):
    one = contents(prepare_text(tmp_path, TEXT))
    assert contents(prepare_text(tmp_path, TEXT)) == one


# --- Tokenizers of others -------------------------------------------------------------------


def test_a_tokenizer_of_another_dataset_is_taken_as_it_is(tmp_path):
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    one = prepare_text(tmp_path / "one", numbered(FRENCH), tokenizer="bpe", vocab_size=300)
    given = one / "tokenizer.json"
    other = prepare_text(tmp_path / "other", numbered(RUSSIAN), tokenizer="one", given=given)
    assert contents(other)["tokenizer.json"] == contents(one)["tokenizer.json"]
    files = load(other)
    text = numbered(RUSSIAN)
    assert files.tokenizer.decode(files.train) == text[: int(len(text) * 0.9)]
    assert files.meta.tokenizer == "one"
    assert files.meta.tokenizer_sha256 == sha256(given)


@pytest.mark.parametrize("threads", [1, 3])
def test_characters_that_a_given_tokenizer_lacks_are_told_with_a_remedy(tmp_path, threads):
    char_tokenizer("abc\n").save(tmp_path / "given.json")
    with pytest.raises(
        UserError,
        match=r"text\.txt: .* `one` .* 4 characters lacks 'é' \(U\+00E9\); leave it out, or choose",
    ) as error:
        prepare_text(
            tmp_path,
            "abc" * 50 + "é",
            tokenizer="one",
            given=tmp_path / "given.json",
            threads=threads,
        )
    assert len(str(error.value).splitlines()) == 1


def test_a_separator_that_a_given_tokenizer_lacks_is_told_with_a_remedy(tmp_path):
    char_tokenizer("abc").save(tmp_path / "given.json")
    paths = write_texts(tmp_path / "texts", ["abc" * 20, "cba" * 20])
    with pytest.raises(
        UserError, match=r"0000\.txt: .* `one` and the separator .*U\+000A.*, or choose"
    ) as error:
        prepare_files(paths, tmp_path / "made", tmp_path / "given.json", tokenizer="one")
    assert len(str(error.value).splitlines()) == 1


def test_a_given_tokenizer_that_is_absent_or_damaged_is_named(tmp_path):
    with pytest.raises(UserError, match=r"given\.json: no such file"):
        prepare_text(tmp_path, TEXT, tokenizer="one", given=tmp_path / "given.json")
    (tmp_path / "given.json").write_text("{}")
    with pytest.raises(UserError, match=r"given\.json: not a tokenizer"):
        prepare_text(tmp_path, TEXT, tokenizer="one", given=tmp_path / "given.json")


# --- What cannot be prepared ----------------------------------------------------------------


TOO_SHORT = [
    ("a", 0.1, "train"),
    ("ab" * 5, 0.1, "val"),
    ("ab" * 5, 0.9, "train"),
    ("abc", 0.5, "train"),
]


@pytest.mark.parametrize(("text", "val_ratio", "named"), TOO_SHORT)
def test_a_text_too_short_to_split_is_named_with_the_split(tmp_path, text, val_ratio, named):
    with pytest.raises(
        UserError, match=rf"text\.txt: .* too few .*{named} split would have \d tokens?; add text"
    ) as error:
        prepare_text(tmp_path, text, val_ratio=val_ratio)
    assert len(str(error.value).splitlines()) == 1
    assert not list(tmp_path.glob("dataset/meta.json"))


def test_a_split_without_a_document_is_named(tmp_path):
    paths = write_texts(tmp_path / "texts", ["some text", "and more"])
    for val_ratio, empty in ((1e-9, "val"), (1 - 1e-9, "train")):
        with pytest.raises(
            UserError, match=rf"0000\.txt: .* too few .*{empty} split would have 0 tokens"
        ) as error:
            prepare_files(paths, tmp_path / "made", split="document", val_ratio=val_ratio)
        assert len(str(error.value).splitlines()) == 1


def test_an_empty_text_is_named(tmp_path):
    with pytest.raises(UserError, match=r"text\.txt: empty"):
        prepare_text(tmp_path, "")


def test_a_wrong_digest_is_told_with_both(tmp_path):
    (tmp_path / "text.txt").write_bytes(TEXT.encode())
    right = sha256(tmp_path / "text.txt")
    prepare_files([tmp_path / "text.txt"], tmp_path / "right", corpus={"sha256": right})
    with pytest.raises(UserError, match=rf"text\.txt: .*{right}.*{'0' * 64}.*again") as error:
        prepare_files([tmp_path / "text.txt"], tmp_path / "wrong", corpus={"sha256": "0" * 64})
    assert len(str(error.value).splitlines()) == 1
    assert not (tmp_path / "wrong").exists()


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_long_text_without_a_blank_is_refused_by_byte_pairs(tmp_path, monkeypatch, split):
    monkeypatch.setattr(encodings, "PIECE", 50)
    monkeypatch.setattr(pieces, "LONGEST_UNCUT", 100)
    words, letters = "some words " * 100, "x" * 160
    text = letters + words * 20 if split == "train" else words * 20 + letters
    message = r"without a blank, .*from '.*xxxx.*'.* on; add line breaks, or .*`tokenizer: char`"
    with pytest.raises(UserError, match=message) as error:
        prepare_text(tmp_path, text, tokenizer="bpe")
    assert len(str(error.value).splitlines()) == 1
    assert "text.txt" in str(error.value)
    train_byte_pairs(["some words"], 300, 1).save(tmp_path / "given.json")
    with pytest.raises(UserError, match=message):
        prepare_text(tmp_path, text, tokenizer="other", given=tmp_path / "given.json")
    assert not list((tmp_path / "dataset").glob("*"))


@pytest.mark.parametrize("tokenizer", ["char", "byte"])
def test_characters_and_bytes_need_no_blank(tmp_path, monkeypatch, tokenizer):
    monkeypatch.setattr(pieces, "LONGEST_UNCUT", 100)
    files = load(prepare_text(tmp_path, "x" * 5000, tokenizer=tokenizer))
    assert len(files.train) == 4500


@pytest.mark.parametrize("text", ["雨が降る。風が吹く、" * 200, "a b" * 700, "line\n" * 500])
def test_sentences_words_and_lines_can_be_cut(tmp_path, monkeypatch, text):
    monkeypatch.setattr(encodings, "PIECE", 50)
    monkeypatch.setattr(pieces, "LONGEST_UNCUT", 200)
    files = load(prepare_text(tmp_path, text, tokenizer="bpe"))
    assert files.tokenizer.decode(files.train) == text[: int(len(text) * 0.9)]


FAILURES = {
    "bytes that do not fit": ({}, {}, b"text \xff\xfe\xfd and more text\n", "byte 0xff"),
    "wrong digest": ({"sha256": "0" * 64}, {}, None, "sha256"),
    "unknown character": ({}, {"tokenizer": "other"}, "é".encode(), "U\\+00E9"),
    "no place to cut": ({}, {"tokenizer": "bpe"}, b"x" * 2000, "without a blank"),
    "too short": ({}, {"val_ratio": 0.999999}, None, "train split would have 0 tokens"),
}


@pytest.mark.parametrize("failure", FAILURES)
@pytest.mark.parametrize("threads", [1, 4])
def test_an_error_leaves_the_old_dataset_whole_and_nothing_else(
    tmp_path, monkeypatch, failure, threads
):
    monkeypatch.setattr(pieces, "LONGEST_UNCUT", 1000)
    monkeypatch.setattr(streams, "BATCH", 500)
    corpus, dataset, tail, message = FAILURES[failure]
    made = prepare_text(tmp_path, "older text\n" * 100)
    before = contents(made)
    char_tokenizer("newr txt\n").save(tmp_path / "given.json")
    given = tmp_path / "given.json" if dataset.get("tokenizer") == "other" else None
    path = tmp_path / "text.txt"
    path.write_bytes(b"newer text\n" * 1000 + (tail or b""))
    with pytest.raises(UserError, match=message) as error:
        prepare_files(
            [path], made, given, threads, corpus={"encoding": "utf-8", **corpus}, **dataset
        )
    assert len(str(error.value).splitlines()) == 1
    assert contents(made) == before


def test_an_error_in_a_later_group_leaves_nothing_in_its_directory(tmp_path):
    paths = write_texts(tmp_path / "texts", ["abc" * 100, "abcé" * 100])
    char_tokenizer("abc\n").save(tmp_path / "given.json")
    options = {"tokenizer": "other", "given": tmp_path / "given.json"}
    with pytest.raises(UserError, match=r"U\+00E9"):
        prepare_by_groups([[path] for path in paths], tmp_path, **options)
    assert set(contents(tmp_path / "groups" / "1")) == {"counts.json"}
    assert not (tmp_path / "made").exists()


def test_byte_tokens_are_the_bytes_of_the_file(tmp_path):
    files = load(prepare_text(tmp_path, TEXT, tokenizer="byte"))
    assert files.tokenizer == ByteTokenizer()
    assert files.train.astype(np.uint8).tobytes() == TEXT[: int(len(TEXT) * 0.9)].encode()
