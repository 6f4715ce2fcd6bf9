"""Finding the files of a corpus, deciding their encoding, and reading them in pieces."""

# ruff: noqa: RUF001 (letters of other alphabets are meant)

import codecs
import csv
import gzip
import io
import json
import lzma
import os
import tracemalloc
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nanogpt.config.schema import Corpus
from nanogpt.data import sources as corpus
from nanogpt.data.encodings import decide_encoding
from nanogpt.data.formats import read_text, texts
from nanogpt.data.sources import find_files
from nanogpt.errors import UserError

ENGLISH = """The lighthouse keeper’s daughter counted ships. “Eleven,” she wrote, “and one of them
is lost.” Nobody had asked her to; the ledger lay in the drawer, beside the fuses and the string,
and nobody but her had opened it since the winter. At noon the fog came in – as it did in every
March – and the horn began: two long, one short. Her father said that the sea does not listen, that
it is people who do, and that for them he got up four times a night. She didn’t believe him. There
was a naïve kind of order in her columns: date, hour, flag, and, in red, whatever didn’t fit. When
the supply boat brought a letter from the city she put it, unread, under the last page. “Tomorrow,”
said the keeper. “Tomorrow,” said the horn, and then there was only the water.
"""
FRENCH = """Le facteur de la vallée n’était jamais pressé. Il connaissait chaque portail, chaque
chien, et le prénom des enfants qui l’attendaient près du pont. « Rien pour vous », disait-il à la
veuve du meunier, et elle répondait : « Tant mieux, c’est que personne n’est mort. » L’été, il
s’arrêtait sous le vieux chêne, ôtait ses souliers et lisait à voix basse les cartes postales, où
l’on parlait de plages, de dîners, d’un cœur brisé à Gênes. Était-ce une faute ? Il ne le pensait
pas. Les mots, croyait-il, s’abîment quand on les enferme trop longtemps. Un soir d’août, une
lettre sans adresse tomba de son sac ; il la garda jusqu’à Noël, la posa sur la table de la
cuisine, et ne l’ouvrit que lorsque la neige eut effacé le chemin. Elle coûtait 3 € de timbres :
une fortune.
"""
GERMAN = """Im Frühjahr zählte der Gärtner die Bäume. Es waren siebzehn, wie im Vorjahr, und doch
glaubte er, dass einer fehlte. Er ging die Reihe zweimal ab, blieb vor der großen Linde stehen und
fühlte mit der Hand über die Rinde, als könnte sie ihm etwas erzählen. Drüben schloss die Müllerin
die Läden; ein Junge schob sein Fahrrad über die Brücke und grüßte nicht. Später, beim Abendbrot,
sagte seine Frau, er höre schlecht und sehe noch schlechter, und überhaupt gehöre ein Mensch in
seinem Alter nicht auf die Leiter. Er nickte, löffelte die Suppe und dachte an die Äste, die er
noch kürzen müsste, ehe der Saft stieg. In der Nacht fiel Schnee, spät und völlig unerwartet.
"""
SPANISH = """El reloj de la plaza llevaba nueve años parado, y nadie en el pueblo parecía echarlo
de menos. La panadera abría cuando olía a leña; el médico, cuando tosía el primer niño. Sólo el
maestro, que venía de la ciudad, miraba cada mañana hacia la torre y corregía la hora en su
cuaderno. ¿Para qué?, le preguntó una alumna. Él señaló las agujas, las palomas, el pequeño nido
que había crecido detrás del número cuatro. Algún día, contestó, alguien subirá a darle cuerda, y
entonces querrá saber cuánto tiempo ha pasado. La niña lo pensó un rato. Después dibujó en el
margen un reloj sin números, rodeado de pájaros, y escribió debajo, con letra muy clara: ¡aquí
vivimos nosotros!
"""
RUSSIAN = """Старый лодочник просыпался раньше всех и выходил к реке, когда над водой ещё стоял
туман. Он проверял верёвки, вычерпывал из лодки дождевую воду и долго смотрел на другой берег, где
жила его сестра. Мост обещали построить ещё при его отце. Приезжали люди с бумагами, мерили
глубину, пили чай и уезжали, а река текла, как прежде. Однажды весной он перевёз на ту сторону
девочку с клеткой, в которой сидел щегол. Она спросила, не скучно ли ему плавать туда и обратно всю
жизнь. Лодочник подумал и ответил, что обратно он плывёт всегда другим человеком. Девочка
засмеялась, а щегол запел, и эта песня потом ещё долго звучала у него в ушах.
"""
JAPANESE = """駅前の小さな本屋は、雨の日だけ朝早くから開いていた。店主の老人は、晴れた日には畑に出
て、大根や葱を育てているのだと言う。ある雨の朝、私は傘を忘れて店に入り、古い地図を一枚買った。そこ
には今はもうない橋と、聞いたことのない村の名前が書かれていた。「この村はどこにあるのですか」とたず
ねると、老人はしばらく窓の外を見てから、「川の向こうです。しかし、橋がなければ行けません」と答えた。
私は地図を丁寧にたたみ、コートの内側にしまった。帰り道、雨はやみ、水たまりに空が映っていた。その夜、
夢の中で私は橋を渡り、だれもいない村で、カタカナの看板を一つずつ読んで歩いた。
"""
SIMPLIFIED = """村口的老槐树下有一口井，井边坐着一个补鞋的人。他每天清早来，傍晚才走，很少说话。孩
子们喜欢围着他，看他把针穿过厚厚的皮子，再用力拉紧。有一天，一个从城里来的学生问他，为什么不到镇上
去开店。补鞋的人笑了笑，说：“这里的路不好走，鞋子坏得快，我走了，大家就要光着脚回家了。”学生把这句
话写在本子上，又觉得不够，便把自己的鞋也脱下来请他修。等鞋修好的时候，天已经黑了，月亮照在井里，像
一枚发亮的铜钱。后来路修平了，汽车开到了门前，井也没有人用了，可是每到秋天，人们还会说起那个补鞋的
人。
"""
TRADITIONAL = """山腳下住著一位修理鐘錶的師傅，店裡掛滿了停住的時鐘。客人問他為什麼不把它
們全部修好，他說，每一座鐘都停在一個人捨不得的時刻，沒有得到允許，他不敢讓時間繼續走。有個年輕人帶來一只懷錶，
說是祖父留下的，請他打開看看。師傅用放大鏡照了很久，從齒輪之間取出一粒細小的沙。「這是海邊的沙，」
他說，「你的祖父大概在那裡等過一個人。」年輕人沒有回答，只是把懷錶放在耳邊，聽見它輕輕地響起來，像
遠處的潮水。那天晚上，店裡所有的鐘同時敲了一下，整條街的人都醒了，又都安靜地睡去。
"""
KOREAN = """바닷가 마을의 우체국은 오후에만 문을 열었다. 국장은 아침마다 배를 타고 나가 그물을
걷었고, 점심을 먹은 뒤에야 편지를 나누었다. 어느 날 주소가 없는 소포가 하나 도착했다. 안에는
조개껍데기와 짧은 쪽지가 들어 있었다. “받는 분이 누구든, 파도 소리를 들어 보세요.” 국장은 그것을
창가에 두고 문을 닫았다.
"""
GREEK = """Ο γέρος ψαράς άφηνε κάθε βράδυ ένα φανάρι στην άκρη του μόλου. Δεν περίμενε κανέναν·
έλεγε πως το φως είναι για τα ψάρια, να βρίσκουν τον δρόμο τους. Τα παιδιά γελούσαν, μα όταν
μεγάλωσαν και έφυγαν, θυμόντουσαν πιο πολύ από όλα εκείνο το μικρό φως που έτρεμε πάνω στο νερό.
"""
EMOJI = "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 🙂 e\u0301 👩\u200d🚀\n"
EVERY = [
    ENGLISH,
    FRENCH,
    GERMAN,
    SPANISH,
    RUSSIAN,
    JAPANESE,
    SIMPLIFIED,
    TRADITIONAL,
    KOREAN,
    GREEK,
    EMOJI,
]

# (text, encoding that it is written in, what `auto` decides)
RECOGNISED = [
    (ENGLISH, "cp1252", "cp1252"),
    (FRENCH, "cp1252", "cp1252"),
    (GERMAN, "cp1252", "cp1252"),
    (SPANISH, "cp1252", "cp1252"),
    (GERMAN, "latin-1", "cp1252"),
    (SPANISH, "latin-1", "cp1252"),
    (RUSSIAN, "koi8-r", "koi8-r"),
    (RUSSIAN, "cp1251", "cp1251"),
    (JAPANESE, "shift_jis", None),
    (SIMPLIFIED, "gb18030", None),
    (TRADITIONAL, "big5", None),
]
WRITTEN = [
    (FRENCH, "cp1252", "cp1252"),
    (FRENCH, "Windows-1252", "cp1252"),
    (GERMAN, "latin-1", "iso8859-1"),
    (RUSSIAN, "koi8-r", "koi8-r"),
    (RUSSIAN, "cp1251", "cp1251"),
    (JAPANESE, "shift_jis", "shift_jis"),
    (JAPANESE, "euc-jp", "euc_jp"),
    (SIMPLIFIED, "gb18030", "gb18030"),
    (TRADITIONAL, "big5", "big5"),
    (KOREAN, "euc-kr", "euc_kr"),
    (GREEK, "cp1253", "cp1253"),
    (EMOJI, "gb18030", "gb18030"),
    (EMOJI, "utf-16-le", "utf-16-le"),
    (EMOJI, "utf-16", "utf-16"),
    (EMOJI, "utf-8-sig", "utf-8-sig"),
    (EMOJI, "UTF8", "utf-8"),
]
# (encoding, a text for it, bytes that fit nowhere between two of its characters)
UNFIT = [
    ("utf-8", EMOJI, b"\xff"),
    ("utf-8", JAPANESE, b"\x80"),
    ("utf-8-sig", FRENCH, b"\xff"),
    ("utf-16", EMOJI, b"\x00\xdc"),  # the second half of a pair, least significant byte first
    ("cp1252", FRENCH, b"\x81"),
    ("shift_jis", JAPANESE, b"\xff"),
    ("euc-jp", JAPANESE, b"\xff"),
    ("gb18030", SIMPLIFIED, b"\xff"),
    ("gb18030", EMOJI, b"\xff"),
    ("big5", TRADITIONAL, b"\xff"),
    ("euc-kr", KOREAN, b"\xff"),
    ("cp1253", GREEK, b"\xff"),
]
COMPRESS = {
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": corpus.zstd.compress,
}


def pieces(path, progress=None, **settings):
    """What `texts` gives for a file of a corpus with these settings."""
    chosen = Corpus(files=[str(path)], **settings)
    return list(texts(path, chosen, decide_encoding(path, chosen), progress))


def text_of(path, **settings):
    return "".join(text for text, _ in pieces(path, **settings))


def documents(path, **settings):
    """The documents of a file, each put together from its pieces."""
    whole, parts = [], []
    for text, ends in pieces(path, **settings):
        assert text or ends, "only the last piece of a document can be empty"
        parts.append(text)
        if ends:
            whole.append("".join(parts))
            parts = []
    assert not parts, "the last document has no end"
    return whole


def complaint(path, **settings):
    """What the user is told of a file: one line that begins with its path."""
    with pytest.raises(UserError) as error:
        pieces(path, **settings)
    message = str(error.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message
    assert "\\n" not in message
    return message


def decided(path, **settings):
    return decide_encoding(path, Corpus(files=[str(path)], **settings))


def encoded(text, encoding, *, go_on=False):
    """A text in an encoding; where it goes on, without the mark that stands at a beginning."""
    if encoding == "utf-16":
        return (b"" if go_on else codecs.BOM_UTF16_LE) + text.encode("utf-16-le")
    return text.encode("utf-8" if go_on and encoding == "utf-8-sig" else encoding)


def varied(text, size):
    """A text of at least `size` characters whose lines all differ, and in length as well."""
    lines = text.splitlines()
    copies = size // len(text) + 1
    return "".join(
        f"{line}{'x' * ((n + number) % 7)}{n}\n"
        for n in range(copies)
        for number, line in enumerate(lines)
    )


@contextmanager
def piece_of(size):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(corpus, "PIECE", size)
        yield


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.txt"


@pytest.fixture(scope="module")
def scratch(tmp_path_factory):
    """A path that the examples of a property overwrite one after the other."""
    return tmp_path_factory.mktemp("scratch") / "a.txt"


@pytest.fixture
def project(tmp_path, monkeypatch):
    """An empty directory that is the current one, and that other users may enter."""
    tmp_path.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def plain_user():
    """Nobody's rights for the time of a test, if it runs as root, who may read everything."""
    if not hasattr(os, "geteuid"):
        pytest.skip("there are no users here")
    user = os.geteuid()
    if user == 0:
        try:
            os.seteuid(65534)
        except OSError:
            pytest.skip("root may not become another user here")
    yield
    os.seteuid(user)


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


# Encodings that are recognised


@pytest.mark.parametrize("text", EVERY, ids=lambda text: text[:8])
@pytest.mark.parametrize(
    ("mark", "encoding", "name"),
    [
        (b"", "utf-8", "utf-8"),
        (codecs.BOM_UTF8, "utf-8", "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16-le", "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16-be", "utf-16"),
        (codecs.BOM_UTF32_LE, "utf-32-le", "utf-32"),
        (codecs.BOM_UTF32_BE, "utf-32-be", "utf-32"),
    ],
)
def test_unicode_is_known_by_its_mark_or_as_utf_8(path, caplog, text, mark, encoding, name):
    write(path, mark + text.encode(encoding))
    assert decided(path) == name
    assert documents(path) == [text]
    assert caplog.text == ""


@pytest.mark.parametrize(("text", "encoding", "name"), RECOGNISED)
def test_a_paragraph_in_an_old_encoding_reads_like_its_utf_8_twin_and_the_guess_is_logged(
    path, caplog, text, encoding, name
):
    twin = write(path.with_name("twin.txt"), text)
    write(path, text.encode(encoding))
    assert documents(path) == documents(twin) == [text]
    guess = decided(path)
    assert name in (guess, None)
    assert f"{path}: not UTF-8; taken for {guess}, a guess" in caplog.text


@pytest.mark.parametrize("text", [ENGLISH, FRENCH, GERMAN, SPANISH], ids=lambda text: text[:8])
def test_five_hundred_characters_of_cp1252_are_enough_wherever_they_begin(path, text):
    for start in range(0, len(text) - 500, 50):
        write(path, text[start : start + 500].encode("cp1252"))
        assert decided(path) == "cp1252"


@pytest.mark.parametrize(("text", "encoding", "name"), RECOGNISED)
def test_a_file_larger_than_the_sample_is_recognised_like_a_small_one(path, text, encoding, name):
    whole = varied(text, 1_500_000)
    write(path, whole.encode(encoding))
    assert path.stat().st_size > 4 * corpus.SAMPLES * corpus.SAMPLE
    assert documents(path) == [whole]
    assert name in (decided(path), None)


@pytest.mark.parametrize("text", [FRENCH, RUSSIAN, SIMPLIFIED, EMOJI], ids=lambda text: text[:8])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_a_large_file_of_unicode_is_recognised_without_a_guess(path, caplog, text, encoding):
    whole = varied(text, 1_500_000)
    write(path, whole.encode(encoding))
    assert documents(path) == [whole]
    assert caplog.text == ""


@pytest.mark.parametrize("text", [JAPANESE, SIMPLIFIED, KOREAN], ids=lambda text: text[:8])
@pytest.mark.parametrize("start", range(3))
def test_utf_8_without_any_ascii_is_recognised_wherever_the_sample_cuts_its_characters(
    path, caplog, text, start
):
    letters = "".join(letter for letter in text if ord(letter) > 0x7F)
    whole = "é" * start + letters * 5000
    write(path, whole.encode())
    assert path.stat().st_size > 4 * corpus.SAMPLES * corpus.SAMPLE
    assert documents(path) == [whole]
    assert decided(path) == "utf-8"
    assert caplog.text == ""


@pytest.mark.parametrize("place", [0, 1, 1_234_567, corpus.PIECE - 1, corpus.PIECE, -1])
@pytest.mark.parametrize(
    "word", ["café", "caf’", "déjà"], ids=["an accent", "a quote", "two accents"]
)
def test_a_single_word_of_cp1252_in_megabytes_of_ascii_is_found(path, place, word):
    line = "Nothing but ASCII is in this line.\n"
    ascii_text = line * 100_000
    whole = ascii_text[:place] + word + ascii_text[place:]
    write(path, whole.encode("cp1252"))
    assert documents(path) == [whole]
    assert decided(path) == "cp1252"


def test_a_single_letter_of_utf_8_in_megabytes_of_ascii_is_no_reason_to_guess(path, caplog):
    whole = "Nothing but ASCII is in this line.\n" * 100_000 + "é"
    write(path, whole.encode())
    assert documents(path) == [whole]
    assert decided(path) == "utf-8"
    assert caplog.text == ""


def test_the_sample_is_bounded_whatever_the_file(path):
    bound = 2 * corpus.SAMPLES * corpus.SAMPLE
    for data in (
        b"x" * 3_000_000,
        "é".encode() * 2_000_000,
        b"x" * 2_000_000 + b"\xe9" * 2_000_000,
    ):
        write(path, data)
        assert 0 < sum(map(len, corpus._sample(path))) <= bound
        packed = write(path.with_name("a.txt.gz"), gzip.compress(data))
        assert corpus._sample(packed) == corpus._sample(path)


# Encodings that are named


@pytest.mark.parametrize(("text", "encoding", "name"), WRITTEN)
def test_a_named_encoding_is_used_and_told_by_python_s_name(path, caplog, text, encoding, name):
    for whole in (text, varied(text, 300_000)):
        write(path, whole.encode(encoding))
        assert decided(path, encoding=encoding) == name
        assert documents(path, encoding=encoding) == [whole]
    assert caplog.text == ""


def test_a_mark_is_dropped_by_utf_8_sig_and_left_by_utf_8(path):
    write(path, codecs.BOM_UTF8 + b"a")
    assert text_of(path, encoding="utf-8-sig") == "a"
    assert text_of(path, encoding="utf-8") == "\ufeffa"


def test_only_the_first_of_two_marks_is_dropped(path):
    write(path, codecs.BOM_UTF8 * 2 + b"a")
    assert text_of(path) == "\ufeffa"


def test_a_codec_that_is_not_of_text_is_refused_before_any_file_is_read():
    for encoding in ("utf-9", "klingon", "rot13", "hex", "undefined", "", "a\0b"):
        with pytest.raises(ValueError, match="is no encoding that Python knows"):
            Corpus(files=["a.txt"], encoding=encoding)


# Bytes that do not fit


@pytest.mark.parametrize(
    ("data", "encoding", "told"),
    [
        (b"caf\xe9", "utf-8", "not utf-8: byte 0xe9 at offset 3 "),
        (b"abc\x81", "cp1252", "not cp1252: byte 0x81 at offset 3 "),
        (b"caf\xc3\xa9", "ascii", "not ascii: byte 0xc3 at offset 3 "),
        (codecs.BOM_UTF8 + b"abc\xff", "auto", "not utf-8-sig: byte 0xff at offset 6 "),
        (codecs.BOM_UTF8 + b"abc\xff", "utf-8-sig", "not utf-8-sig: byte 0xff at offset 6 "),
        (b"abc\xff", "utf-8-sig", "not utf-8-sig: byte 0xff at offset 3 "),
        (codecs.BOM_UTF16_LE + b"a\0b", "auto", "not utf-16: byte 0x62 at offset 4 "),
        (codecs.BOM_UTF16_BE + b"\0a\xdc\0", "auto", "not utf-16: byte 0xdc at offset 4 "),
        (codecs.BOM_UTF32_LE + b"a\0\0\0b", "auto", "not utf-32: byte 0x62 at offset 8 "),
        ("é".encode()[:1], "utf-8", "not utf-8: byte 0xc3 at offset 0 "),
        ("あ".encode("shift_jis")[:1], "shift_jis", "not shift_jis: byte 0x82 at offset 0 "),
        (b"ab\x81\x20", "gb18030", "not gb18030: byte 0x81 at offset 2 "),
        (b"ab\xa1\x20", "big5", "not big5: byte 0xa1 at offset 2 "),
        (b"\xed\xa0\x80", "utf-8", "not utf-8: byte 0xed at offset 0 "),
    ],
)
def test_a_byte_that_does_not_fit_is_told_with_file_offset_and_remedy(path, data, encoding, told):
    write(path, data)
    for size in (1, 2, 3, corpus.PIECE):
        with piece_of(size):
            message = complaint(path, encoding=encoding)
        assert message.startswith(f"{path}: {told}")
        assert "`encoding:`" in message
        assert "`errors: replace`" in message


@pytest.mark.parametrize(("encoding", "text", "unfit"), UNFIT)
@given(st.data())
@settings(deadline=None)
def test_an_unfit_byte_has_its_offset_told_at_any_place_for_any_size_of_the_pieces(
    scratch, encoding, text, unfit, data
):
    place = data.draw(st.integers(0, len(text)))
    before, after = encoded(text[:place], encoding), encoded(text[place:], encoding, go_on=True)
    write(scratch, before + unfit + after)
    with piece_of(data.draw(st.integers(1, 40) | st.just(corpus.PIECE))):
        message = complaint(scratch, encoding=encoding)
    assert f"byte 0x{unfit[0]:02x} at offset {len(before)} does not fit" in message


@pytest.mark.parametrize(("encoding", "text", "unfit"), UNFIT)
def test_an_unfit_byte_has_its_offset_told_after_megabytes(path, encoding, text, unfit):
    before = encoded(varied(text, 700_000), encoding)
    assert len(before) > 2 * corpus.PIECE
    write(path, before + unfit + encoded(text, encoding, go_on=True))
    message = complaint(path, encoding=encoding)
    assert f"byte 0x{unfit[0]:02x} at offset {len(before)} does not fit" in message


@pytest.mark.parametrize("text", [GERMAN, RUSSIAN, JAPANESE, FRENCH], ids=lambda text: text[:8])
@pytest.mark.parametrize("flaw", [b"\xff", b"\xe9t\xe9", b"\xed\xa0\x80"])
@pytest.mark.parametrize("size", [0, 1_000_000])
def test_utf_8_with_a_bad_byte_is_told_with_the_offset_and_no_reason_to_guess(
    path, caplog, text, flaw, size
):
    text = varied(text, size)
    before, after = (half.encode() for half in (text[: len(text) // 2], text[len(text) // 2 :]))
    write(path, before + flaw + after)
    message = complaint(path)
    assert f"not utf-8: byte 0x{flaw[0]:02x} at offset {len(before)} " in message
    assert caplog.text == ""


@pytest.mark.parametrize("size", [0, 1_000_000], ids=["small", "large"])
@pytest.mark.parametrize("order", [1, -1], ids=["UTF-8 first", "UTF-8 last"])
@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (ENGLISH, "cp1252"),
        (FRENCH, "cp1252"),
        (GERMAN, "latin-1"),
        (SPANISH, "cp1252"),
        (RUSSIAN, "koi8-r"),
        (RUSSIAN, "cp1251"),
        (JAPANESE, "shift_jis"),
        (SIMPLIFIED, "gb18030"),
        (TRADITIONAL, "big5"),
        ("One café is in this text, and much else.\n" + "And so on.\n" * 90, "cp1252"),
    ],
    ids=lambda value: value[:8],
)
def test_two_encodings_in_one_file_are_an_error_where_utf_8_ends(path, text, encoding, order, size):
    text = varied(text, size)
    whole = b"".join([text.encode(), text.encode(encoding)][::order])
    with pytest.raises(UnicodeDecodeError) as error:
        whole.decode("utf-8")
    write(path, whole)
    assert f"not utf-8: byte 0x{whole[error.value.start]:02x} at offset {error.value.start} " in (
        complaint(path)
    )


def test_a_single_line_of_cp1252_in_a_large_file_of_utf_8_is_an_error_with_its_offset(path):
    before = varied(FRENCH, 2_000_000).encode()
    write(path, before + "déjà\n".encode("cp1252") + before)
    assert f"byte 0xe9 at offset {len(before) + 1} " in complaint(path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
@pytest.mark.parametrize("errors", ["strict", "replace"])
def test_an_encoding_that_needs_a_mark_is_told_that_there_is_none(path, encoding, errors):
    write(path, "plain".encode(f"{encoding}-le"))
    for size in (1, 3, corpus.PIECE):
        with piece_of(size):
            assert "does not start with BOM" in complaint(path, encoding=encoding, errors=errors)


def test_with_errors_replace_a_byte_that_does_not_fit_becomes_one_replacement_character(path):
    for encoding, _, unfit in UNFIT:
        write(path, encoded("a", encoding) + unfit + encoded("b", encoding, go_on=True))
        for size in (1, 2, 3, corpus.PIECE):
            with piece_of(size):
                assert text_of(path, encoding=encoding, errors="replace") == "a\ufffdb"


def test_errors_replace_keeps_all_the_rest_of_a_text_that_auto_takes_for_utf_8(path):
    text = varied(FRENCH, 1_000_000)
    half = len(text) // 2
    write(path, text[:half].encode() + b"\xff" + text[half:].encode())
    assert text_of(path, errors="replace") == text[:half] + "\ufffd" + text[half:]


# Pieces


@pytest.mark.filterwarnings("ignore:Characters .* can be encoded")  # but are others then
@pytest.mark.parametrize("errors", ["strict", "replace"])
@pytest.mark.parametrize(
    "encoding",
    [
        *("utf-8", "utf-8-sig", "utf-16", "utf-32", "cp1252", "latin-1", "koi8-r"),
        *("shift_jis", "euc-jp", "gb18030", "big5", "euc-kr"),
    ],
)
@given(st.data())
@settings(deadline=None)
def test_for_any_bytes_and_pieces_of_any_size_a_text_is_what_decoding_at_once_gives(
    scratch, encoding, errors, data
):
    letters = st.text(st.characters(codec=encoding, exclude_categories=["Cs"]), max_size=8)
    written = letters.map(lambda text: text.encode(encoding))
    parts = data.draw(st.lists(written | st.binary(max_size=3), max_size=4))
    whole = "".encode(encoding) + b"".join(parts)  # with the mark that some need
    write(scratch, whole)
    size = data.draw(st.integers(1, 9) | st.just(corpus.PIECE))
    try:
        text, flaw = whole.decode(encoding, errors), None
    except UnicodeDecodeError as error:
        text, flaw = "", error
    with piece_of(size):
        if flaw is not None:
            # What the standard library counts in utf-8-sig begins after the mark.
            marked = encoding == "utf-8-sig" and whole.startswith(codecs.BOM_UTF8)
            start = flaw.start + 3 * (marked and len(flaw.object) < len(whole))
            told = complaint(scratch, encoding=encoding, errors=errors)
            # A piece before the flaw may hold a NUL, which ends the reading.
            assert f" at offset {start} " in told or "\0" in whole.decode(encoding, "replace")
        elif "\0" in text and errors == "strict":
            assert "binary" in complaint(scratch, encoding=encoding, errors=errors)
        elif not text:
            assert "empty" in complaint(scratch, encoding=encoding, errors=errors)
        else:
            wanted = text.replace("\0", "\ufffd")
            assert documents(scratch, encoding=encoding, errors=errors) == [wanted]


@pytest.mark.parametrize("size", [1, 3, 7, 101])
@pytest.mark.parametrize(("text", "encoding", "name"), WRITTEN)
def test_a_piece_s_border_splits_no_character(path, text, encoding, name, size):
    write(path, text.encode(encoding))
    with piece_of(size):
        assert documents(path, encoding=name) == [text]


@given(st.text("ab\r\n", min_size=1), st.integers(1, 5))
@settings(deadline=None)
def test_newlines_lf_makes_every_line_end_a_line_feed_wherever_pieces_end(scratch, text, size):
    write(scratch, text)
    with piece_of(size):
        wanted = text.replace("\r\n", "\n").replace("\r", "\n")
        assert documents(scratch, newlines="lf") == [wanted]
        assert documents(scratch) == [text]


@pytest.mark.parametrize("encoding", ["utf-16", "shift_jis"])
def test_newlines_lf_holds_in_every_encoding(path, encoding):
    write(path, "一\r\n二\r三\n\r".encode(encoding))
    with piece_of(3):
        assert text_of(path, encoding=encoding, newlines="lf") == "一\n二\n三\n\n"


without_nul = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)


@given(without_nul)
@settings(deadline=None)
def test_any_text_survives_utf_8(scratch, text):
    assume(text[0] != "\ufeff")
    write(scratch, text.encode())
    assert documents(scratch) == [text]


@given(without_nul, st.sampled_from(["utf-8-sig", "utf-16", "utf-32"]))
@settings(deadline=None)
def test_any_text_survives_an_encoding_with_a_mark_of_which_one_is_dropped(scratch, text, encoding):
    write(scratch, text.encode(encoding))
    assert decided(scratch) == encoding
    assert documents(scratch) == [text]


@given(
    st.binary(),
    st.sampled_from(["auto", "utf-8", "utf-16", "cp1252", "shift_jis", "utf-7", "unicode_escape"]),
    st.sampled_from(["strict", "replace"]),
)
@settings(deadline=None)  # charset-normalizer's first guess loads its tables
def test_any_bytes_become_text_or_an_error_of_one_line(scratch, data, encoding, errors):
    write(scratch, data)
    text, message = "", ""
    try:
        text = text_of(scratch, encoding=encoding, errors=errors)
    except UserError as error:
        message = str(error)
    assert bool(text) != bool(message)
    assert "\n" not in message
    text.encode("utf-8")


def test_the_memory_that_reading_takes_does_not_grow_with_a_line(path):
    block = "海".encode() * (1 << 20)
    with open(path, "wb") as file:
        for _ in range(66):
            file.write(block)
    assert path.stat().st_size > 200_000_000
    chosen = Corpus(files=[str(path)])
    n_characters = 0
    tracemalloc.start()
    try:
        for text, _ in texts(path, chosen, decide_encoding(path, chosen)):
            n_characters += len(text)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    path.unlink()
    assert n_characters == 66 << 20
    assert peak < 20 * corpus.PIECE


# What is no text


@pytest.mark.parametrize(
    "data",
    [
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        b"text and one NUL\0",
        "UTF-16 without a mark".encode("utf-16-le"),
        FRENCH.encode("cp1252") + b"\0",
        bytes(range(1, 256)) * 16,
        bytes(range(128, 256)) * 8,
        varied(ENGLISH, 1_000_000).encode() + b"\0",
        b"a" * (2 * corpus.PIECE - 1) + b"\0" + b"a" * 1_000_000,
    ],
    ids=["image", "NUL", "UTF-16", "cp1252", "all bytes", "high bytes", "NUL at the end", "border"],
)
def test_binary_data_is_refused_without_a_guess(path, caplog, data):
    write(path, data)
    message = complaint(path)
    assert message.startswith(f"{path}: binary, not text")
    assert "`encoding:`" in message
    assert caplog.text == ""


@pytest.mark.parametrize("encoding", ["utf-8", "cp1252", "utf-16"])
def test_nul_makes_a_text_binary_in_a_named_encoding_too_unless_it_is_replaced(path, encoding):
    write(path, "a\0b".encode(encoding))
    told = complaint(path, encoding=encoding)
    assert "binary, not text" in told
    assert "`errors: replace`" in told
    assert documents(path, encoding=encoding, errors="replace") == ["a\ufffdb"]


@pytest.mark.parametrize("data", [b"", codecs.BOM_UTF8, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE])
@pytest.mark.parametrize("name", ["a.txt", "a.txt.gz"])
def test_an_empty_text_is_refused_with_a_mark_as_without(tmp_path, name, data):
    path = write(tmp_path / name, gzip.compress(data) if name.endswith(".gz") else data)
    assert complaint(path).startswith(f"{path}: empty; put a text there")


def test_a_lone_surrogate_is_told_in_one_line_or_replaced(path):
    for encoding, data, told in (
        ("utf-16-le", "né".encode("utf-16-le") + b"\x00\xd8", "at offset 4 "),
        ("utf-16", codecs.BOM_UTF16_BE + b"\0n\0\xe9\xdc\0", "at offset 6 "),
        ("utf-7", b"n+AOk-+2AA-", "a lone surrogate, U+D800"),
        ("unicode_escape", rb"n\xe9\ud800", "a lone surrogate, U+D800"),
    ):
        write(path, data)
        for size in (1, 2, 3, corpus.PIECE):
            with piece_of(size):
                assert told in complaint(path, encoding=encoding)
                assert text_of(path, encoding=encoding, errors="replace") == "né\ufffd"


def test_surrogates_in_the_form_of_utf_8_do_not_pass(path):
    for data in (b"\xed\xa0\x80", b"plain \xed\xa0\x80 text", codecs.BOM_UTF8 + b"\xed\xa0\x80"):
        write(path, data)
        assert f"byte 0xed at offset {data.index(0xED)} " in complaint(path)


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("absent.txt", "no such file; put"),
        (".", "a directory; name"),
        ("a.txt/b.txt", "Not a directory"),
        ("a.txt", "binary"),
        ("absent.parquet", "no such file; put"),
        ("absent.jsonl", "no such file; put"),
        ("absent.txt.gz", "no such file; put"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_with_path_and_remedy(tmp_path, name, told):
    write(tmp_path / "a.txt", b"\0")
    assert told in complaint(tmp_path / name)


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.csv", "a.txt.gz", "a.parquet"])
def test_a_file_without_permission_is_told(name, request):
    pytest.importorskip("pyarrow")  # and imported while that is still permitted
    path = write(Path(name), "secret")
    path.chmod(0)
    request.getfixturevalue("plain_user")
    assert complaint(path).startswith(f"{name}: no permission to read it; try `chmod a+r {name}`")


# Small files


def test_read_text_takes_a_file_for_utf_8_and_never_guesses(path):
    write(path, EMOJI + "dos\r\nmac\runix\n")
    assert read_text(path) == EMOJI + "dos\r\nmac\runix\n"
    write(path, GERMAN.encode("cp1252"))
    with pytest.raises(UserError, match=r"a\.txt: not UTF-8: byte 0xfc at offset 5; convert it"):
        read_text(path)


def test_read_text_counts_a_byte_order_mark_in_the_offset_of_a_flaw(path):
    write(path, codecs.BOM_UTF8 + b"abc\xff")
    with pytest.raises(UserError, match="byte 0xff at offset 6;"):
        read_text(path)


def test_read_text_drops_a_byte_order_mark_which_is_no_part_of_a_prompt(path):
    assert read_text(write(path, codecs.BOM_UTF8 + b"ROMEO:")) == "ROMEO:"


# JSONL


def jsonl(*records, ensure_ascii=False):
    return "".join(json.dumps(record, ensure_ascii=ensure_ascii) + "\n" for record in records)


@pytest.fixture
def table(tmp_path):
    """A function: bytes or text in, path of a file of that kind out."""
    return lambda suffix, data: write(tmp_path / f"a{suffix}", data)


TEXTS = st.text(st.characters(exclude_categories=["Cs"]))


@given(
    st.lists(TEXTS, min_size=1),
    st.booleans(),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    st.sampled_from([1, 3, corpus.PIECE]),
)
@settings(deadline=None)
def test_each_row_of_jsonl_is_a_document_and_empty_ones_are_left_out(
    scratch, rows, ensure_ascii, encoding, size
):
    path = scratch.with_suffix(".jsonl")
    data = jsonl(*({"id": 1, "text": row} for row in rows), ensure_ascii=ensure_ascii)
    write(path, data.encode(encoding))
    with piece_of(size):
        if any(rows):
            assert documents(path, encoding=encoding) == [row for row in rows if row]
        else:
            assert "no document" in complaint(path, encoding=encoding)


def test_blank_lines_of_jsonl_are_passed_over_and_the_last_needs_no_line_feed(table):
    path = table(".jsonl", '\n{"text": "a"}\n\n  \t\r\n{"text": "b"}\r\n\n{"text": "c"}')
    assert documents(path) == ["a", "b", "c"]


def test_line_separators_of_unicode_end_no_line_of_jsonl(table):
    rows = ["a\u2028b", "c\u2029d", "e\x85f", "g\x0bh\x0ci\x1cj"]
    raw = "".join(f'{{"text": "{row}"}}\n' for row in rows[:3])
    path = table(".jsonl", raw + jsonl({"text": rows[3]}))
    for size in (1, corpus.PIECE):
        with piece_of(size):
            assert documents(path) == rows


def test_another_field_of_jsonl_is_read_where_it_is_named(table):
    path = table(".jsonl", jsonl({"text": "no", "Körper": "yes"}))
    assert documents(path, text_column="Körper") == ["yes"]


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('{"text": "cut', "not JSON: "),
        ("plain text", "not JSON: "),
        ('{"text": "a"} {"text": "b"}', "not JSON: "),
        ('{"body": "x", "id": 1}', "no column `text`; there is `body`, `id`; name"),
        ("{}", "no column `text`; there is none"),
        ("[1, 2]", "not a JSON object"),
        ('"text"', "not a JSON object"),
        ("3", "not a JSON object"),
        ("null", "not a JSON object"),
        ('{"text": 3}', "`text` is no text but int"),
        ('{"text": ["a"]}', "`text` is no text but list"),
        ("[" * 200_000, "not JSON: "),
        ('{"text":' * 100_000, "not JSON: "),
        ('{"text": ' + "1" * 10_000 + "}", "line 4: "),
    ],
    ids=lambda value: value[:24],
)
def test_a_row_of_jsonl_that_is_no_document_is_told_with_its_line(table, line, told):
    path = table(".jsonl", f'{{"text": "fine"}}\n\n{{"text": "é"}}\n{line}\n{{"text": "x"}}\n')
    for size in (5, corpus.PIECE):
        with piece_of(size):
            message = complaint(path)
        assert message.startswith(f"{path}: line 4: ")
        assert told in message


def test_a_null_of_jsonl_is_left_out_as_one_of_parquet(table):
    assert documents(table(".jsonl", '{"text": null}\n{"text": "x"}\n')) == ["x"]


def test_a_lone_surrogate_of_json_is_told_with_its_line_or_replaced(table):
    path = table(".jsonl", '{"text": "fine"}\n{"text": "a\\ud800b"}\n{"text": "\\ud83d\\ude42"}\n')
    told = complaint(path)
    assert told.startswith(f"{path}: line 2: a lone surrogate, U+D800")
    assert "`errors: replace`" in told
    assert documents(path, errors="replace") == ["fine", "a\ufffdb", "🙂"]


@given(st.text(st.characters(exclude_characters="\0"), min_size=1))
@settings(deadline=None)
def test_errors_replace_puts_one_character_for_each_lone_surrogate_and_leaves_the_rest(
    scratch, text
):
    path = write(scratch.with_suffix(".jsonl"), jsonl({"text": text}, ensure_ascii=True))
    wanted = json.loads(json.dumps(text))  # joins halves that stand side by side
    wanted = "".join("\ufffd" if "\ud800" <= letter <= "\udfff" else letter for letter in wanted)
    assert documents(path, errors="replace") == [wanted]


def test_an_unfit_byte_in_jsonl_is_told_with_its_offset_in_the_file(table):
    before = jsonl(*({"text": line} for line in FRENCH.splitlines()))
    path = table(".jsonl", before.encode() + b'{"text": "\xff"}\n')
    assert f"byte 0xff at offset {len(before.encode()) + 10} " in complaint(path)


@pytest.mark.parametrize("data", ["", "\n\n", '{"text": ""}\n', "\ufeff"])
def test_jsonl_without_a_document_is_refused(table, data):
    assert "no document in it; put" in complaint(table(".jsonl", data))


def test_newlines_lf_holds_within_a_row(table):
    path = table(".jsonl", jsonl({"text": "a\r\nb\rc\n\r"}))
    assert documents(path, newlines="lf") == ["a\nb\nc\n\n"]
    assert documents(path) == ["a\r\nb\rc\n\r"]


# CSV


def csv_of(rows, **dialect):
    file = io.StringIO(newline="")
    csv.writer(file, **dialect).writerows(rows)
    return file.getvalue()


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"))),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from([1, 3, corpus.PIECE]),
)
@settings(deadline=None)
def test_each_row_of_csv_is_a_document_and_empty_ones_are_left_out(scratch, rows, end, size):
    table = [["id", "text"], *([1, row] for row in rows)]
    data = csv_of(table, lineterminator=end, quoting=csv.QUOTE_ALL)
    path = write(scratch.with_suffix(".csv"), data)
    with piece_of(size):
        if any(rows):
            assert documents(path) == [row for row in rows if row]
        else:
            assert "no document" in complaint(path)


def test_quoted_line_ends_commas_and_quotes_belong_to_the_text(table):
    path = table(".csv", 'text,id\n"a\nb, ""c""\r\n",1\n\n"é",2')
    assert documents(path) == ['a\nb, "c"\r\n', "é"]
    assert documents(path, newlines="lf") == ['a\nb, "c"\n', "é"]
    assert documents(path, text_column="id") == ["1", "2"]


def test_a_field_of_csv_may_be_long(table):
    long = "é" * 300_000
    assert documents(table(".csv", f"text\n{long}\n")) == [long]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("id,body\n1,a\n", "no column `text`; there is `id`, `body`; name"),
        ("id;text\n1;a\n", "no column `text`; there is `id;text`; name"),
        ("", "no column `text`; there is none"),
        ("id,text\n1,a\n1,b,c\n", "line 3: 3 fields where the header has 2"),
        ('id,text\n1,"a\nb"\n1\n', "line 4: 1 field where the header has 2"),
        ('id,text\n1,a\n2,"b\n3,c\n', "line 4: not CSV: "),
        ('id,text\n1,"a"b\n', "line 2: not CSV: "),
        ("id,text\n", "no document in it"),
        ('"id,text\n', "line 1: not CSV: "),
    ],
)
def test_what_is_wrong_with_a_csv_is_told_with_its_line(table, data, told):
    path = table(".csv", data)
    for size in (1, corpus.PIECE):
        with piece_of(size):
            assert complaint(path).startswith(f"{path}: {told}")


def test_a_csv_of_cp1252_is_recognised(table):
    lines = FRENCH.splitlines()
    path = table(".csv", csv_of([["text"], *([line] for line in lines)]).encode("cp1252"))
    assert documents(path) == lines


# Parquet


@pytest.fixture
def parquet(tmp_path):
    """A function: columns in, path of a parquet file out."""
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    def write_table(columns, **options):
        parquet.write_table(pyarrow.table(columns), tmp_path / "a.parquet", **options)
        return tmp_path / "a.parquet"

    return write_table


def test_each_row_of_parquet_is_a_document_in_all_row_groups(parquet):
    rows = [f"{number}: {line}" for number in range(200) for line in FRENCH.splitlines()]
    path = parquet({"id": list(range(len(rows))), "text": rows}, row_group_size=100)
    assert documents(path) == rows
    assert decided(path) == "utf-8"


def test_nulls_and_empty_rows_of_parquet_are_left_out(parquet):
    path = parquet({"text": [None, "a", "", "b\r\n", None]}, row_group_size=2)
    assert documents(path) == ["a", "b\r\n"]
    assert documents(path, newlines="lf") == ["a", "b\n"]


def test_another_column_of_parquet_is_read_where_it_is_named(parquet):
    path = parquet({"text": [1, 2], "my.body": ["é", "b"]})
    assert documents(path, text_column="my.body") == ["é", "b"]


@pytest.mark.parametrize("kind", ["string", "large_string", "string_view", "dictionary"])
def test_every_kind_of_strings_in_parquet_is_text(parquet, kind):
    pyarrow = pytest.importorskip("pyarrow")
    types = {"dictionary": pyarrow.dictionary(pyarrow.int32(), pyarrow.string())}
    column = pyarrow.array(["é", "b", "é"], types.get(kind) or getattr(pyarrow, kind)())
    assert documents(parquet({"text": column})) == ["é", "b", "é"]


@pytest.mark.parametrize(
    ("columns", "told"),
    [
        ({"id": [1], "body": ["a"]}, "no column `text`; there is `id`, `body`; name"),
        ({"text": [1, 2]}, "row 1: `text` is no text but int"),
        ({"text": [None, ["a"]]}, "row 2: `text` is no text but list"),
        ({"text": [None, ""]}, "no document in it"),
        ({"text": []}, "no document in it"),
    ],
)
def test_what_is_wrong_with_a_parquet_file_is_told(parquet, columns, told):
    path = parquet(columns)
    assert complaint(path).startswith(f"{path}: {told}")


def test_strings_of_parquet_that_are_not_utf_8_are_told_in_one_line(parquet):
    pyarrow = pytest.importorskip("pyarrow")
    offsets, letters = (0).to_bytes(4, "little") + (2).to_bytes(4, "little"), b"a\xff"
    buffers = [None, pyarrow.py_buffer(offsets), pyarrow.py_buffer(letters)]
    path = parquet({"text": pyarrow.Array.from_buffers(pyarrow.string(), 1, buffers)})
    complaint(path)


@pytest.mark.parametrize("cut", [0, 3, 100, -1, -4, -100])
def test_a_truncated_parquet_file_is_told(parquet, cut):
    path = parquet({"text": FRENCH.splitlines()})
    path.write_bytes(path.read_bytes()[:cut])
    assert "not a parquet file that can be read" in complaint(path)


def test_a_parquet_file_with_damaged_pages_is_told(parquet):
    path = parquet({"text": varied(FRENCH, 100_000).splitlines()}, compression="zstd")
    data = bytearray(path.read_bytes())
    data[100:200] = bytes(100)
    path.write_bytes(data)
    complaint(path)


def test_a_text_that_is_called_parquet_is_told(tmp_path):
    pytest.importorskip("pyarrow")
    path = write(tmp_path / "a.parquet", FRENCH)
    assert "not a parquet file that can be read" in complaint(path)


# Compressed files


@pytest.mark.parametrize("compression", COMPRESS)
def test_a_compressed_file_reads_like_the_one_it_holds(tmp_path, compression):
    compress = COMPRESS[compression]
    for text, encoding in ((varied(JAPANESE, 400_000), "utf-8"), (FRENCH, "cp1252")):
        path = write(tmp_path / f"a.txt{compression}", compress(text.encode(encoding)))
        assert documents(path) == [text]
        with piece_of(1001):
            assert documents(path) == [text]
    rows = FRENCH.splitlines()
    for suffix, data in (
        (".jsonl", jsonl(*({"text": row} for row in rows))),
        (".csv", csv_of([["text"], *([row] for row in rows)])),
    ):
        path = write(tmp_path / f"a{suffix}{compression}", compress(data.encode()))
        assert documents(path) == rows


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("suffix", [".txt", ".jsonl"])
def test_several_compressed_streams_in_one_file_are_read_whole(tmp_path, compression, suffix):
    rows = [f"{number}: {line}" for number in range(500) for line in FRENCH.splitlines()]
    lines = [jsonl({"text": row}) if suffix == ".jsonl" else row + "\n" for row in rows]
    # Cut in the midst of lines and characters.
    data = "".join(lines).encode()
    parts = [data[start : start + 100_003] for start in range(0, len(data), 100_003)]
    assert len(parts) > 3
    path = write(tmp_path / f"a{suffix}{compression}", b"".join(map(COMPRESS[compression], parts)))
    assert documents(path) == (rows if suffix == ".jsonl" else ["".join(lines)])


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("suffix", [".txt", ".jsonl"])
@pytest.mark.parametrize("left", [0.01, 0.5, 0.99, -1])
def test_a_truncated_compressed_file_is_told_in_one_line(tmp_path, compression, suffix, left):
    data = varied(SPANISH, 300_000)
    if suffix == ".jsonl":
        data = jsonl(*({"text": line} for line in data.splitlines()))
    packed = COMPRESS[compression](data.encode())
    packed = packed[:-1] if left == -1 else packed[: int(left * len(packed))]
    path = write(tmp_path / f"a{suffix}{compression}", packed)
    message = complaint(path)
    assert "cannot be read to its end" in message
    assert "get it again" in message


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("suffix", [".txt", ".jsonl"])
def test_a_damaged_compressed_file_is_told_in_one_line(tmp_path, compression, suffix):
    data = varied(SPANISH, 300_000)
    if suffix == ".jsonl":
        data = jsonl(*({"text": line} for line in data.splitlines()))
    packed = bytearray(COMPRESS[compression](data.encode()))
    middle = len(packed) // 2
    packed[middle:] = bytes(len(packed) - middle)  # as a download that was broken off can end
    path = write(tmp_path / f"a{suffix}{compression}", packed)
    assert "cannot be read to its end" in complaint(path)


@pytest.mark.parametrize("compression", COMPRESS)
def test_a_text_that_is_called_compressed_is_told(tmp_path, compression):
    path = write(tmp_path / f"a.txt{compression}", FRENCH)
    assert "cannot be read to its end" in complaint(path)


@pytest.mark.parametrize("compression", COMPRESS)
def test_the_offset_told_of_a_compressed_file_is_that_in_what_it_holds(tmp_path, compression):
    before = varied(FRENCH, 600_000).encode()
    path = write(tmp_path / f"a.txt{compression}", COMPRESS[compression](before + b"\xff"))
    assert f"byte 0xff at offset {len(before)} " in complaint(path)


# Progress


@pytest.mark.parametrize("suffix", [".txt", ".jsonl", ".csv", ".txt.gz", ".jsonl.xz", ".txt.zst"])
def test_what_progress_is_told_sums_to_the_size_of_the_file(tmp_path, suffix):
    lines = varied(FRENCH, 1_000_000).splitlines()
    data = "".join(f"{line}\n" for line in lines)
    if ".jsonl" in suffix:
        data = jsonl(*({"text": line} for line in lines))
    if ".csv" in suffix:
        data = csv_of([["text"], *([line] for line in lines)])
    compress = COMPRESS.get(Path(suffix).suffix, bytes)
    path = write(tmp_path / f"a{suffix}", compress(data.encode()))
    steps = []
    pieces(path, steps.append)
    assert sum(steps) == path.stat().st_size
    assert min(steps) >= 0
    if compress is bytes:
        assert sum(step > 0 for step in steps) > 1


@pytest.mark.parametrize("n_rows", [1, 256, 257, 1000])
def test_what_progress_is_told_of_parquet_sums_to_the_size_of_the_file(parquet, n_rows):
    rows = [f"{number}: {line}" for number in range(200) for line in FRENCH.splitlines()]
    path = parquet({"text": rows[:n_rows]}, row_group_size=300)
    steps = []
    pieces(path, steps.append)
    assert sum(steps) == path.stat().st_size


# Finding files


def found(*files, name="mine"):
    return [path.as_posix() for path in find_files(name, Corpus(files=list(files)))]


def not_found(*files):
    with pytest.raises(UserError) as error:
        find_files("mine", Corpus(files=list(files)))
    message = str(error.value)
    assert message.startswith("corpora.mine.files: ")
    assert "\n" not in message
    return message


@pytest.fixture
def library(project):
    """A project with some texts, and some files that are none."""
    for name in (
        "texts/b.txt",
        "texts/a.txt",
        "texts/c.jsonl",
        "texts/sub/deep/d.parquet",
        "texts/sub/e.csv",
        "texts/sub/f.txt.gz",
        "texts/sub/g.jsonl.zst",
        "texts/sub/h.txt.xz",
        "texts/README.md",
        "texts/picture.png",
        "texts/.hidden.txt",
        "texts/.cache/i.txt",
        "texts/sub/.j/k.txt",
        "other/l.log",
        "other/m.txt",
    ):
        write(project / name, "x")
    return project


def test_a_single_file_may_have_any_name(library):
    assert found("texts/b.txt") == ["texts/b.txt"]
    assert found("texts/README.md") == ["texts/README.md"]
    assert found("texts/.hidden.txt") == ["texts/.hidden.txt"]
    assert found(str(library / "other/l.log")) == [(library / "other/l.log").as_posix()]
    assert [str(p) for p in find_files("n", Corpus(files="other/m.txt"))] == ["other/m.txt"]


@pytest.mark.usefixtures("library")
def test_files_keep_the_order_in_which_they_are_listed():
    assert found("texts/b.txt", "other/m.txt", "texts/a.txt") == [
        "texts/b.txt",
        "other/m.txt",
        "texts/a.txt",
    ]


def test_a_directory_gives_its_texts_recursively_sorted_and_without_hidden_ones(library):
    wanted = [
        "texts/a.txt",
        "texts/b.txt",
        "texts/c.jsonl",
        "texts/sub/deep/d.parquet",
        "texts/sub/e.csv",
        "texts/sub/f.txt.gz",
        "texts/sub/g.jsonl.zst",
        "texts/sub/h.txt.xz",
    ]
    assert found("texts") == found("texts/") == found("./texts") == wanted
    assert found(str(library / "texts")) == [(library / name).as_posix() for name in wanted]


@pytest.mark.usefixtures("library")
def test_a_directory_that_is_hidden_itself_or_lies_in_a_hidden_one_is_taken_when_named():
    assert found("texts/.cache") == ["texts/.cache/i.txt"]
    assert found("texts/sub/.j/") == ["texts/sub/.j/k.txt"]


@pytest.mark.usefixtures("library")
def test_a_pattern_gives_the_files_that_match_it_sorted():
    assert found("texts/[ab].txt") == ["texts/a.txt", "texts/b.txt"]
    assert found("*/?.log") == ["other/l.log"]
    assert found("texts/**/*.gz") == ["texts/sub/f.txt.gz"]
    assert found("**/[b-m].txt") == ["other/m.txt", "texts/b.txt"]
    assert found("texts/*.md", "texts/*.jsonl") == ["texts/README.md", "texts/c.jsonl"]


def test_a_pattern_gives_no_directory(library):
    (library / "texts/z.txt").mkdir()
    assert found("texts/[az].txt") == ["texts/a.txt"]


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("entry", ["texts/**.txt", "**b.txt", "texts/***/b.txt"])
def test_two_stars_beside_other_letters_are_one_star_or_an_error_in_one_line(entry):
    files, message = [], ""
    try:
        files = found(entry)
    except UserError as error:
        message = str(error)
    assert files[-1:] == ["texts/b.txt"] or entry in message


@pytest.mark.usefixtures("library")
def test_a_file_is_read_once_however_often_it_is_found():
    assert found("texts/b.txt", "texts", "texts/*.txt", "./texts/b.txt")[:2] == [
        "texts/b.txt",
        "texts/a.txt",
    ]
    again = found("texts", "texts", "texts/**/*.csv", "texts/a.txt")
    assert again == found("texts")


def test_a_name_with_brackets_stars_blanks_or_foreign_letters_is_literal_if_there_is_such_a_file(
    project,
):
    names = ["a[1].txt", "b c  d.txt", "größe 文.txt", "e*.txt", "[x]/f.txt", "100%.txt", "#g.txt"]
    for name in names:
        write(project / name, "x")
    write(project / "a1.txt", "x")
    write(project / "ee.txt", "x")
    assert [found(name) for name in names] == [[name] for name in names]
    assert found("[x]") == ["[x]/f.txt"]
    assert found(str(project / "a[1].txt")) == [(project / "a[1].txt").as_posix()]


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize(
    ("entry", "told"),
    [
        ("absent.txt", "there is no file absent.txt"),
        ("absent/", "there is no file absent"),
        ("texts/*.pdf", "no file matches the pattern texts/*.pdf"),
        ("texts/[", "no file matches the pattern texts/["),
        ("x" * 5000, "x"),
        ("a\0b.txt", "there is no file"),
    ],
)
def test_what_is_not_found_is_told_with_the_name_of_the_corpus(entry, told):
    assert told in not_found("texts/a.txt", entry)


def test_a_directory_without_texts_is_told_with_what_would_be_taken(project):
    write(project / "texts/a.pdf", "x")
    write(project / "texts/.b.txt", "x")
    (project / "texts/c.txt").mkdir()
    told = not_found("texts")
    assert "in the directory texts" in told
    for suffix in (".txt", ".jsonl", ".ndjson", ".parquet", ".csv"):
        assert suffix in told


def test_the_suffix_of_a_text_in_a_directory_may_be_in_capitals(project):
    write(project / "texts/a.txt", "x")
    write(project / "texts/B.TXT", "x")
    assert sorted(found("texts")) == ["texts/B.TXT", "texts/a.txt"]


@pytest.mark.usefixtures("library")
def test_a_pattern_gives_hidden_files_only_where_it_says_so():
    assert found("texts/*.txt") == ["texts/a.txt", "texts/b.txt"]
    assert found("texts/.*.txt") == ["texts/.hidden.txt"]
    assert found("texts/.cache/*") == ["texts/.cache/i.txt"]


def test_a_suffix_in_capitals_says_the_same_of_a_file(tmp_path):
    data = jsonl({"text": "one"}, {"text": "two"}).encode()
    assert documents(write(tmp_path / "A.JSONL", data)) == ["one", "two"]
    assert documents(write(tmp_path / "A.JSONL.GZ", gzip.compress(data))) == ["one", "two"]


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("entry", ["/*.txt", "/**/*.txt", "../*.txt", "texts/../../*/*.txt"])
def test_a_pattern_that_leads_out_of_the_project_is_refused(entry):
    told = not_found(entry)
    assert f"the pattern {entry} leads out of the project" in told
    assert "name a directory instead" in told


def test_a_directory_and_a_file_may_lie_outside_the_project(library, monkeypatch):
    monkeypatch.chdir(library / "texts")
    assert found("../other") == ["../other/m.txt"]
    assert found("../other/l.log") == ["../other/l.log"]


def test_links_are_followed_to_files_and_to_a_directory_that_is_named(library):
    (library / "link.txt").symlink_to("other/m.txt")
    (library / "linked").symlink_to("other")
    assert found("link.txt") == ["link.txt"]
    assert found("linked") == ["linked/m.txt"]
    assert found("linked/*.txt") == ["linked/m.txt"]
    (library / "other/n.txt").symlink_to("../texts/a.txt")
    assert found("other") == ["other/m.txt", "other/n.txt"]


def test_links_within_a_directory_are_followed(library):
    (library / "other/linked").symlink_to("../texts/sub")
    assert [path for path in found("other") if "linked" in path]


def test_a_link_in_a_circle_is_not_followed_for_ever(library):
    (library / "other/self").symlink_to(".")
    assert found("other") == ["other/m.txt"]
    (library / "other/loop.txt").symlink_to("loop.txt")
    for entry in ("other", "other/loop.txt"):
        assert "loop.txt" in not_found(entry)


def test_a_link_that_leads_nowhere_is_told(library):
    (library / "other/gone.txt").symlink_to("absent.txt")
    assert "there is no file other/gone.txt" in not_found("other/gone.txt")
    assert "other/gone.txt: a link to nothing; mend" in not_found("other")


def test_an_unreadable_file_is_found_and_told_when_it_is_read(library, request):
    (library / "other/m.txt").chmod(0)
    request.getfixturevalue("plain_user")
    assert found("other") == ["other/m.txt"]
    assert "no permission" in complaint(Path("other/m.txt"))


def test_an_unreadable_directory_is_told(library, request):
    (library / "other").chmod(0)
    request.getfixturevalue("plain_user")
    try:
        for entry in ("other", "other/m.txt"):
            assert "ermission denied" in not_found(entry)
    finally:
        os.seteuid(os.getuid())
        (library / "other").chmod(0o755)


def test_an_unreadable_directory_within_one_is_told_and_its_texts_not_left_out_in_silence(
    library, request
):
    (library / "texts/sub").chmod(0)
    request.getfixturevalue("plain_user")
    try:
        assert "texts/sub" in not_found("texts")
    finally:
        os.seteuid(os.getuid())
        (library / "texts/sub").chmod(0o755)


def test_a_download_and_a_built_in_text_need_not_be_there_yet(project):
    url = "https://example.org/texts/part-[08-10].jsonl"
    assert find_files("mine", Corpus(url=url)) == [
        corpus.DOWNLOADS / "mine" / f"part-{number}.jsonl" for number in ("08", "09", "10")
    ]
    assert find_files("play", Corpus(builtin="playwright")) == [corpus.DOWNLOADS / "play/input.txt"]
    assert not list(project.iterdir())
