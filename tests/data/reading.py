"""Texts in many languages, and helpers to write and read them."""

# ruff: noqa: RUF001 (letters of other alphabets are meant)

import codecs
import csv
import gzip
import io
import json
import lzma
from contextlib import contextmanager

import pytest

from nanogpt.config.corpora import Corpus
from nanogpt.data import encodings, opening
from nanogpt.data.encodings import decide_encoding
from nanogpt.data.formats import read_documents
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

# (text, its encoding, the encoding that `auto` detects)
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
# (encoding, a text for it, bytes that are invalid between any two of its characters)
UNFIT = [
    ("utf-8", EMOJI, b"\xff"),
    ("utf-8", JAPANESE, b"\x80"),
    ("utf-8-sig", FRENCH, b"\xff"),
    (
        "utf-16",
        EMOJI,
        b"\x00\xdc",
    ),  # the second half of a surrogate pair, least significant byte first
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
    ".zst": opening.zstd.compress,
}


def pieces(path, progress=None, **settings):
    """The result of `read_documents` for a file of a corpus with these settings."""
    chosen = Corpus(files=[str(path)], **settings)
    return list(read_documents(path, chosen, decide_encoding(path, chosen), progress))


def text_of(path, **settings):
    return "".join(text for text, _ in pieces(path, **settings))


def documents(path, **settings):
    """The documents of a file, each joined from its pieces."""
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
    """The error for a file: one line that starts with its path."""
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
    """Encode a text. go_on: it continues another text, so it has no byte order mark."""
    if encoding == "utf-16":
        return (b"" if go_on else codecs.BOM_UTF16_LE) + text.encode("utf-16-le")
    return text.encode("utf-8" if go_on and encoding == "utf-8-sig" else encoding)


def varied(text, size):
    """A text of at least `size` characters whose lines all differ, in length too."""
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
        patch.setattr(encodings, "PIECE", size)
        yield


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def jsonl(*records, ensure_ascii=False):
    return "".join(json.dumps(record, ensure_ascii=ensure_ascii) + "\n" for record in records)


def csv_of(rows, **dialect):
    file = io.StringIO(newline="")
    csv.writer(file, **dialect).writerows(rows)
    return file.getvalue()
