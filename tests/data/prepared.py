"""Prepare datasets from texts, in one job or by groups."""

import csv
import gzip
import json
import random

import pytest

from nanogpt.artifacts.records.base import read_record, write_record
from nanogpt.artifacts.records.groups import GroupCounts, Plan
from nanogpt.config.corpora import Corpus, Dataset
from nanogpt.data.batches import load
from nanogpt.data.cleaning import Cleaner, choose_documents, table_files
from nanogpt.data.pieces import Group
from nanogpt.data.preparing import count, encode, plan_dataset, prepare
from nanogpt.data.saved_tokenizers import load_tokenizer
from nanogpt.files.atomic import atomic_write
from nanogpt.project import group_name
from tests.data.hard_texts import MIRROR, gpt2_only

PLAY_FILE = (
    MIRROR / "raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
)

needs_play = pytest.mark.skipif(
    not PLAY_FILE.is_file(),
    reason="Tiny Shakespeare is not there: NANOGPT_MIRROR is not set, or lacks it",
)

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
    """A repeated paragraph, numbered to make each copy different."""
    return "".join(f"{number}. {paragraph}" for number in range(times))


# Text, encoding, and the names of the encoding that can read it.
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


def write_texts(directory, texts, encoding="utf-8"):
    """Write each text to a file; return the paths."""
    directory.mkdir(exist_ok=True)
    paths = [directory / f"{number:04d}.txt" for number in range(len(texts))]
    for path, text in zip(paths, texts, strict=True):
        path.write_bytes(text.encode(encoding))
    return paths


def prepare_files(paths, directory, given=None, threads=1, corpus=None, **dataset):
    """Prepare some files as one dataset; return its directory."""
    corpus = Corpus(files=list(map(str, paths)), **(corpus or {}))
    dataset = Dataset(**dataset)
    prepare(paths, corpus, dataset, directory, tokenizer_file=given, threads=threads)
    return directory


def prepare_text(directory, text, **dataset):
    """Write a text to a file in `directory` and prepare it; return the dataset's directory."""
    (directory / "text.txt").write_bytes(text.encode())
    return prepare_files([directory / "text.txt"], directory / "dataset", **dataset)


def prepare_by_groups(groups, directory, given=None, threads=1, sharded=False, **dataset):
    """Prepare groups of files like the workflow, in steps with JSON files; return the directory."""
    paths = [path for group in groups for path in group]
    corpus, dataset = Corpus(files=list(map(str, paths))), Dataset(**dataset)
    jobs = directory / "groups"
    made = directory / "made"
    directories = [jobs / group_name(number) for number in range(len(groups))]
    for group, place in zip(groups, directories, strict=True):
        with atomic_write(place / "documents.bin") as file:
            cleaner = Cleaner(dataset, file.write) if dataset.cleans else None
            write_record(place / "counts.json", count(group, corpus, threads, cleaner))
    counts = [read_record(place / "counts.json", GroupCounts) for place in directories]
    tables = table_files([place / "documents.bin" for place in directories], counts, dataset)
    choice = choose_documents(counts, tables, dataset)
    kept = choice.kept if choice else None
    plan, tokenizer = plan_dataset(counts, corpus, dataset, given, threads, choice)
    write_record(jobs / "plan.json", plan)
    tokenizer.save(jobs / "tokenizer.json")
    for number, place in enumerate(directories):
        plan = read_record(jobs / "plan.json", Plan)
        tokenizer = load_tokenizer(jobs / "tokenizer.json")
        group = Group(counts[number], plan, number, corpus, dataset, kept)
        where = (made, threads, number) if sharded else (place, threads)
        write_record(place / "totals.json", encode(group, tokenizer, *where))
    prepare(paths, corpus, dataset, made, plan_file=jobs / "plan.json", sharded=sharded)
    return made


def contents(directory):
    """The bytes of each file in a directory, including hidden ones."""
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.is_file()}


def tokens_of(directory):
    files = contents(directory)
    return files["train.bin"], files["val.bin"]


def documents(directory, split):
    """The documents of a split, in order. The separator must not occur in any document."""
    files = load(directory)
    text = files.tokenizer.decode(getattr(files, split))
    assert text.endswith("\x1e")
    return text.removesuffix("\x1e").split("\x1e")


def made_up(n_documents, seed=0):
    """Documents that are hard for table formats: quotes, commas, line breaks, scripts."""
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


def write_rows(path, texts):
    """Write texts as the rows of a table, in the format of the path's suffix."""
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
