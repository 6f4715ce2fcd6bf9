"""Fetching from servers and mirrors that misbehave, and decoding whatever encoding a text is in."""

# ruff: noqa: RUF001 (letters of other alphabets are meant)

import codecs
import hashlib
import logging
import os
import random
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nanogpt import corpus
from nanogpt.config import UserError

BODY = random.Random(1).randbytes(300_000)
DIGEST = hashlib.sha256(BODY).hexdigest()
WRONG = "0" * 64

Answer = Callable[[BaseHTTPRequestHandler], None]


@pytest.fixture(autouse=True)
def _quick_and_direct(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(corpus, "CONNECT_TIMEOUT", 0.2)
    monkeypatch.setattr(corpus, "READ_TIMEOUT", 0.2)
    monkeypatch.setattr(corpus, "BACKOFF", 0.001)
    for scheme in ("http", "https", "all"):
        monkeypatch.delenv(f"{scheme}_proxy", raising=False)
        monkeypatch.delenv(f"{scheme}_proxy".upper(), raising=False)
    caplog.set_level(logging.INFO, logger=corpus.__name__)


class Server:
    """An HTTP server on loopback that answers a path's n-th request with the path's n-th answer."""

    def __init__(self) -> None:
        self.answers: dict[str, list[Answer]] = {}
        self.requests: list[str] = []
        self.closing = threading.Event()
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.requests.append(self.path)
                answers = server.answers.get(self.path, [status(404)])
                (answers.pop(0) if len(answers) > 1 else answers[0])(self)

            def log_message(self, *args: object) -> None: ...

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.http.server_port}"

    def url(self, path: str, *answers: Answer) -> str:
        self.answers[path] = list(answers)
        return f"http://{self.host}{path}"

    def stall(self, handler: BaseHTTPRequestHandler) -> None:
        """Begin the body and leave the rest out until the test is over."""
        begin(handler, len(BODY), BODY[:1000])
        self.closing.wait(5)


@contextmanager
def serving(http: ThreadingHTTPServer) -> Iterator[None]:
    thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    with serving(server.http):
        yield server
        server.closing.set()


def begin(handler: BaseHTTPRequestHandler, length: int, body: bytes) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(length))
    handler.end_headers()
    handler.wfile.write(body)


def whole(body: bytes) -> Answer:
    return lambda handler: begin(handler, len(body), body)


def truncated(handler: BaseHTTPRequestHandler) -> None:
    begin(handler, len(BODY), BODY[:100_000])


def status(code: int, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()

    return answer


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


@pytest.fixture
def destination(tmp_path: Path) -> Path:
    directory = tmp_path / "corpora"
    directory.mkdir()
    return directory / "input.txt"


@pytest.fixture
def refusing() -> Iterator[str]:
    """A host and port that nobody listens on, held so that nobody begins to."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


# Fetching


def test_a_download_is_the_server_s_bytes_and_its_digest_is_returned(
    server: Server, destination: Path
) -> None:
    url = server.url("/input.txt", whole(BODY))
    assert corpus.fetch(url, destination, sha256=DIGEST) == DIGEST
    assert destination.read_bytes() == BODY
    assert names(destination.parent) == ["input.txt"]


def test_the_log_tells_source_and_size_and_a_digest_that_was_not_known(
    server: Server, destination: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = server.url("/input.txt", whole(BODY))
    corpus.fetch(url, destination, sha256=DIGEST)
    assert f"{len(BODY)} bytes from {url}" in caplog.text
    assert DIGEST not in caplog.text
    corpus.fetch(url, destination)
    assert f"`sha256: {DIGEST}`" in caplog.text


def test_a_redirect_is_followed(server: Server, destination: Path) -> None:
    server.url("/new.txt", whole(BODY))
    url = server.url("/old.txt", status(302, Location="/new.txt"))
    assert corpus.fetch(url, destination) == DIGEST


def test_redirects_in_a_circle_are_told_and_not_tried_again(
    server: Server, destination: Path
) -> None:
    url = server.url("/a.txt", status(302, Location="/a.txt"))
    with pytest.raises(UserError, match="redirects"):
        corpus.fetch(url, destination)
    assert len(server.requests) < 30
    assert names(destination.parent) == []


@pytest.mark.parametrize("passing", [status(500), status(503), status(429), truncated])
def test_what_may_pass_is_tried_again_until_it_has_passed(
    server: Server, destination: Path, passing: Answer
) -> None:
    url = server.url("/input.txt", passing, passing, whole(BODY))
    assert corpus.fetch(url, destination) == DIGEST
    assert destination.read_bytes() == BODY
    assert len(server.requests) == 3


def test_a_further_try_keeps_nothing_of_the_one_before(server: Server, destination: Path) -> None:
    url = server.url("/input.txt", truncated, whole(b"short"))
    assert corpus.fetch(url, destination) == hashlib.sha256(b"short").hexdigest()
    assert destination.read_bytes() == b"short"


def test_a_body_of_unknown_length_is_taken_whole(server: Server, destination: Path) -> None:
    def unsized(handler: BaseHTTPRequestHandler) -> None:
        status(200)(handler)
        handler.wfile.write(BODY)

    assert corpus.fetch(server.url("/input.txt", unsized), destination) == DIGEST


def test_a_stall_is_cut_short_and_tried_again(server: Server, destination: Path) -> None:
    url = server.url("/input.txt", server.stall, whole(BODY))
    assert corpus.fetch(url, destination) == DIGEST
    assert destination.read_bytes() == BODY


@pytest.mark.parametrize(
    ("answer", "tries", "reason"),
    [
        (status(404), 1, "HTTP 404"),
        (status(403), 1, "HTTP 403"),
        (status(410), 1, "HTTP 410"),
        (status(500), corpus.TRIES, "HTTP 500"),
        (status(429), corpus.TRIES, "HTTP 429"),
        (truncated, corpus.TRIES, "without sending complete message body"),
        (None, corpus.TRIES, "timed out"),
    ],
)
def test_a_failure_is_one_line_with_the_reason_and_three_ways_out(
    server: Server, destination: Path, answer: Answer | None, tries: int, reason: str
) -> None:
    url = server.url("/input.txt", answer or server.stall)
    with pytest.raises(UserError) as error:
        corpus.fetch(url, destination)
    message = str(error.value)
    assert message.startswith(f"{url}: ")
    assert "\n" not in message
    for part in (reason, "NANOGPT_MIRROR", str(destination), "`make demo`"):
        assert part in message
    assert len(server.requests) == tries
    assert names(destination.parent) == []


def test_a_refused_connection_is_told(refusing: str, destination: Path) -> None:
    with pytest.raises(UserError, match="no connection: Connection refused; set NANOGPT_MIRROR"):
        corpus.fetch(f"http://{refusing}/input.txt", destination)
    assert names(destination.parent) == []


def test_a_host_that_does_not_resolve_is_told_as_no_network(destination: Path) -> None:
    host = ".".join(["a" * 60] * 5)  # longer than a name can be, so that no DNS server is asked
    with pytest.raises(UserError, match=f"no network: could not resolve host {host};"):
        corpus.fetch(f"http://{host}/input.txt", destination)
    assert names(destination.parent) == []


@pytest.mark.parametrize(
    ("host", "reason"), [("example..org", "malformed host name"), ("example.org:x", "not a URL")]
)
def test_a_malformed_url_is_told(host: str, reason: str, destination: Path) -> None:
    with pytest.raises(UserError, match=f"^http://{host}/input.txt: {reason}"):
        corpus.fetch(f"http://{host}/input.txt", destination)
    assert names(destination.parent) == []


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
def test_a_certificate_that_nobody_vouches_for_is_refused(
    tmp_path: Path, destination: Path
) -> None:
    command = (
        "openssl req -x509 -nodes -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -days 2 "
        "-subj /CN=localhost -addext subjectAltName=IP:127.0.0.1 -keyout key.pem -out cert.pem"
    )
    subprocess.run(command.split(), check=True, capture_output=True, cwd=tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    server = Server()
    server.http.socket = context.wrap_socket(
        server.http.socket, server_side=True, do_handshake_on_connect=False
    )
    server.http.handle_error = lambda *_: None  # type: ignore[method-assign]
    server.answers["/input.txt"] = [whole(BODY)]
    with serving(server.http), pytest.raises(UserError, match="CERTIFICATE_VERIFY_FAILED"):
        corpus.fetch(f"https://{server.host}/input.txt", destination)
    assert server.requests == []
    assert names(destination.parent) == []


@pytest.mark.parametrize(
    ("variable", "value"), [("ALL_PROXY", "gopher://127.0.0.1"), ("SSL_CERT_FILE", "/absent.pem")]
)
def test_a_broken_setting_of_the_environment_is_told_as_such(
    server: Server,
    destination: Path,
    monkeypatch: pytest.MonkeyPatch,
    variable: str,
    value: str,
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(UserError, match="the environment's proxy or certificates: "):
        corpus.fetch(server.url("/input.txt", whole(BODY)), destination)
    assert names(destination.parent) == []


def test_a_wrong_digest_is_told_with_both_digests_and_the_file_kept_aside(
    server: Server, destination: Path
) -> None:
    url = server.url("/input.txt", whole(BODY))
    with pytest.raises(UserError) as error:
        corpus.fetch(url, destination, sha256=WRONG)
    for part in (url, DIGEST, WRONG, f"{destination}.corrupt", "`sha256:`"):
        assert part in str(error.value)
    assert "\n" not in str(error.value)
    assert names(destination.parent) == ["input.txt.corrupt"]
    assert Path(f"{destination}.corrupt").read_bytes() == BODY
    assert len(server.requests) == 1


def test_a_failure_leaves_the_file_of_an_earlier_download(
    server: Server, destination: Path
) -> None:
    destination.write_text("of old")
    with pytest.raises(UserError):
        corpus.fetch(server.url("/input.txt", truncated), destination)
    with pytest.raises(UserError):
        corpus.fetch(server.url("/input.txt", whole(BODY)), destination, sha256=WRONG)
    assert destination.read_text() == "of old"
    assert names(destination.parent) == ["input.txt", "input.txt.corrupt"]


def test_a_destination_that_cannot_be_made_is_told(server: Server, destination: Path) -> None:
    destination.write_text("a file, no directory")
    with pytest.raises(UserError, match=r"x\.txt: cannot be written: .*make room"):
        corpus.fetch(server.url("/x.txt", whole(BODY)), destination / "x.txt")


def test_a_disk_that_fills_up_is_told_and_nothing_left(server: Server, destination: Path) -> None:
    url = server.url("/input.txt", whole(BODY))
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(BODY) // 2, hard))
    try:
        with pytest.raises(UserError, match=r"input\.txt: cannot be written: .*make room"):
            corpus.fetch(url, destination)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(destination.parent) == []


def test_progress_is_shown_on_a_terminal_only(
    server: Server,
    destination: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    url = server.url("/input.txt", whole(BODY))
    corpus.fetch(url, destination)
    assert capsys.readouterr().err == ""
    termios = pytest.importorskip("termios")
    terminal, stderr = os.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    os.set_blocking(terminal, False)
    with os.fdopen(stderr, "w") as file:
        monkeypatch.setattr(sys, "stderr", file)
        corpus.fetch(url, destination)
        file.flush()
        assert b"input.txt: 100%" in os.read(terminal, 65536)
    os.close(terminal)


# Mirrors

URL = "https://example.invalid/texts/input.txt"


@pytest.fixture
def mirror(tmp_path: Path) -> Path:
    directory = tmp_path / "a mirror"
    (directory / "example.invalid/texts").mkdir(parents=True)
    (directory / "example.invalid/texts/input.txt").write_bytes(BODY)
    (directory / "example.invalid/a b.txt?raw=true").write_bytes(BODY)
    return directory


@pytest.fixture(params=["directory", "file", "http"])
def address(request: pytest.FixtureRequest, mirror: Path) -> Iterator[str]:
    """How a mirror can be written."""
    if request.param == "directory":
        yield str(mirror)
    elif request.param == "file":
        yield mirror.as_uri()
    else:

        class Handler(SimpleHTTPRequestHandler):
            def log_message(self, *args: object) -> None: ...

        http = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(mirror.parent)))
        with serving(http):
            yield f"http://127.0.0.1:{http.server_port}/a%20mirror/"


@pytest.mark.parametrize("url", [URL, "https://example.invalid/a%20b.txt?raw=true"])
def test_a_mirror_is_a_directory_a_file_url_or_a_url_prefix(
    address: str, url: str, destination: Path
) -> None:
    assert corpus.fetch(url, destination, sha256=DIGEST, mirrors=[address]) == DIGEST
    assert destination.read_bytes() == BODY
    assert names(destination.parent) == ["input.txt"]


def test_a_wrong_digest_from_a_mirror_is_an_error_and_no_other_source_is_tried(
    address: str, mirror: Path, server: Server, destination: Path
) -> None:
    (mirror / server.host).mkdir()
    (mirror / server.host / "input.txt").write_bytes(b"of another version")
    url = server.url("/input.txt", whole(BODY))
    with pytest.raises(UserError, match=f"wrong sha256: expected {DIGEST}"):
        corpus.fetch(url, destination, sha256=DIGEST, mirrors=[address])
    assert server.requests == []
    assert names(destination.parent) == ["input.txt.corrupt"]


def test_a_mirror_without_the_file_is_passed_over(
    address: str, server: Server, destination: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = server.url("/input.txt", whole(BODY))
    assert corpus.fetch(url, destination, mirrors=[address]) == DIGEST
    assert any(reason in caplog.text for reason in ("No such file", "HTTP 404"))
    assert names(destination.parent) == ["input.txt"]


def test_a_mirror_that_does_not_work_is_passed_over(
    refusing: str, mirror: Path, server: Server, destination: Path
) -> None:
    (mirror / server.host / "input.txt").mkdir(parents=True)
    url = server.url("/input.txt", whole(BODY))
    mirrors = [f"http://{refusing}", "http://exa mple:x", str(mirror)]
    assert corpus.fetch(url, destination, mirrors=mirrors) == DIGEST


def test_mirrors_are_tried_in_order_and_before_the_url(
    mirror: Path, server: Server, destination: Path, tmp_path: Path
) -> None:
    url = server.url("/input.txt", whole(BODY))
    for name in ("first", "second"):
        (tmp_path / name / server.host).mkdir(parents=True)
        (tmp_path / name / server.host / "input.txt").write_text(name)
    mirrors = [str(mirror), str(tmp_path / "first"), str(tmp_path / "second")]
    corpus.fetch(url, destination, mirrors=mirrors)
    assert destination.read_text() == "first"
    assert server.requests == []


def test_with_mirrors_the_reason_told_is_the_last_source_s(
    mirror: Path, server: Server, destination: Path
) -> None:
    url = server.url("/gone.txt", status(410))
    with pytest.raises(UserError, match="HTTP 410"):
        corpus.fetch(url, destination, mirrors=[str(mirror)])
    assert names(destination.parent) == []


def test_the_environment_s_mirror_comes_before_those_configured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("NANOGPT_MIRROR", "/mine")
    assert corpus.mirrors(["/theirs"]) == ["/mine", "/theirs"]
    monkeypatch.setenv("NANOGPT_MIRROR", "")
    assert corpus.mirrors(["/theirs"]) == ["/theirs"]
    monkeypatch.delenv("NANOGPT_MIRROR")
    assert corpus.mirrors([]) == []


# Decoding

FRENCH = "« Où est le cœur de l’été ? » – Noël, naïve, paya 5 € à Zoë."
GERMAN = "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich."
RUSSIAN = "Съешь же ещё этих мягких французских булок, да выпей чаю."
JAPANESE = "いろはにほへと、ちりぬるを。色は匂へど散りぬるを。カタカナ"
SIMPLIFIED = "满纸荒唐言，一把辛酸泪。都云作者痴，谁解其中味？"
TRADITIONAL = "滿紙荒唐言，一把辛酸淚。都云作者癡，誰解其中味？"
GREEK = "Ξεσκεπάζω την ψυχοφθόρα βδελυγμία."
ARABIC = "نص حكيم له سر قاطع وذو شأن عظيم"
EMOJI = "𝔘𝔫𝔦𝔠𝔬𝔡𝔢 🙂 e\u0301"
SENTENCES = [
    FRENCH,
    GERMAN,
    RUSSIAN,
    JAPANESE,
    SIMPLIFIED,
    TRADITIONAL,
    GREEK,
    ARABIC,
    EMOJI,
]

PROUST = """Longtemps, je me suis couché de bonne heure. Parfois, à peine ma bougie éteinte, mes
yeux se fermaient si vite que je n’avais pas le temps de me dire : « Je m’endors. » Et, une
demi-heure après, la pensée qu’il était temps de chercher le sommeil m’éveillait ; je voulais poser
le volume que je croyais avoir encore dans les mains et souffler ma lumière ; je n’avais pas cessé
en dormant de faire des réflexions sur ce que je venais de lire, mais ces réflexions avaient pris
un tour un peu particulier ; il me semblait que j’étais moi-même ce dont parlait l’ouvrage : une
église, un quatuor, la rivalité de François Ier et de Charles-Quint. Cette croyance survivait
pendant quelques secondes à mon réveil ; elle ne choquait pas ma raison mais pesait comme des
écailles sur mes yeux et les empêchait de se rendre compte que le bougeoir n’était plus allumé.
Puis elle commençait à me devenir inintelligible, comme après la métempsycose les pensées d’une
existence antérieure ; le sujet du livre se détachait de moi, j’étais libre de m’y appliquer ou non.
"""
KAFKA = """Als Gregor Samsa eines Morgens aus unruhigen Träumen erwachte, fand er sich in seinem
Bett zu einem ungeheueren Ungeziefer verwandelt. Er lag auf seinem panzerartig harten Rücken und
sah, wenn er den Kopf ein wenig hob, seinen gewölbten, braunen, von bogenförmigen Versteifungen
geteilten Bauch, auf dessen Höhe sich die Bettdecke, zum gänzlichen Niedergleiten bereit, kaum noch
erhalten konnte. Seine vielen, im Vergleich zu seinem sonstigen Umfang kläglich dünnen Beine
flimmerten ihm hilflos vor den Augen. „Was ist mit mir geschehen?“ dachte er. Es war kein Traum.
Sein Zimmer, ein richtiges, nur etwas zu kleines Menschenzimmer, lag ruhig zwischen den vier
wohlbekannten Wänden. Über dem Tisch, auf dem eine auseinandergepackte Musterkollektion von
Tuchwaren ausgebreitet war – Samsa war Reisender –, hing das Bild, das er vor kurzem aus einer
illustrierten Zeitschrift ausgeschnitten und in einem hübschen, vergoldeten Rahmen untergebracht
hatte. Es stellte eine Dame dar, die, mit einem Pelzhut und einer Pelzboa versehen, aufrecht dasaß.
"""
CERVANTES = """En un lugar de la Mancha, de cuyo nombre no quiero acordarme, no ha mucho tiempo que
vivía un hidalgo de los de lanza en astillero, adarga antigua, rocín flaco y galgo corredor. Una
olla de algo más vaca que carnero, salpicón las más noches, duelos y quebrantos los sábados,
lantejas los viernes, algún palomino de añadidura los domingos, consumían las tres partes de su
hacienda. El resto della concluían sayo de velarte, calzas de velludo para las fiestas, con sus
pantuflos de lo mesmo, y los días de entresemana se honraba con su vellorí de lo más fino. Tenía en
su casa una ama que pasaba de los cuarenta, y una sobrina que no llegaba a los veinte, y un mozo de
campo y plaza, que así ensillaba el rocín como tomaba la podadera. Frisaba la edad de nuestro
hidalgo con los cincuenta años; era de complexión recia, seco de carnes, enjuto de rostro, gran
madrugador y amigo de la caza. Quieren decir que tenía el sobrenombre de Quijada, o Quesada, que en
esto hay alguna diferencia en los autores que deste caso escriben; aunque por conjeturas verosímiles
se deja entender que se llamaba Quejana. Pero esto importa poco a nuestro cuento.
"""
TOLSTOY = """Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива
по-своему. Всё смешалось в доме Облонских. Жена узнала, что муж был в связи с бывшею в их доме
француженкою-гувернанткой, и объявила мужу, что не может жить с ним в одном доме. Положение это
продолжалось уже третий день и мучительно чувствовалось и самими супругами, и всеми членами семьи,
и домочадцами. Все члены семьи и домочадцы чувствовали, что нет смысла в их сожительстве и что на
каждом постоялом дворе случайно сошедшиеся люди более связаны между собой, чем они, члены семьи и
домочадцы Облонских. Жена не выходила из своих комнат, мужа третий день не было дома. Дети бегали
по всему дому, как потерянные; англичанка поссорилась с экономкой и написала записку приятельнице,
прося приискать ей новое место; повар ушел вчера со двора, во время самого обеда; черная кухарка и
кучер просили расчета. На третий день после ссоры князь Степан Аркадьич Облонский в обычный час,
то есть в восемь часов утра, проснулся не в спальне жены, а в своем кабинете, на сафьянном диване.
"""
ENGLISH = "The café’s naïve owner said: “So be it.” He shut the door and went to the river.\n" * 13

# NUL makes data binary, and U+FEFF at the very beginning is a byte order mark: both have their own
# tests. Surrogates are no characters, and no encoding of Unicode has them.
without_nul = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
texts = without_nul.filter(lambda text: text[0] != "\ufeff")


@pytest.mark.parametrize("text", SENTENCES)
@pytest.mark.parametrize(
    ("mark", "encoding", "decided"),
    [
        (b"", "utf-8", "utf-8"),
        (codecs.BOM_UTF8, "utf-8", "utf-8-sig"),
        (codecs.BOM_UTF16_LE, "utf-16-le", "utf-16"),
        (codecs.BOM_UTF16_BE, "utf-16-be", "utf-16"),
        (codecs.BOM_UTF32_LE, "utf-32-le", "utf-32"),
        (codecs.BOM_UTF32_BE, "utf-32-be", "utf-32"),
    ],
)
def test_unicode_is_known_by_its_mark_or_as_utf_8(
    text: str, mark: bytes, encoding: str, decided: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert corpus.decode(mark + text.encode(encoding), "a.txt") == (text, decided)
    assert caplog.text == ""


@pytest.mark.parametrize(
    ("text", "encoding", "canonical"),
    [
        (FRENCH, "cp1252", "cp1252"),
        (FRENCH, "Windows-1252", "cp1252"),
        (GERMAN, "latin-1", "iso8859-1"),
        (RUSSIAN, "koi8-r", "koi8-r"),
        (RUSSIAN, "cp1251", "cp1251"),
        (JAPANESE, "shift_jis", "shift_jis"),
        (JAPANESE, "euc-jp", "euc_jp"),
        (SIMPLIFIED, "gb18030", "gb18030"),
        (TRADITIONAL, "big5", "big5"),
        (GREEK, "iso8859-7", "iso8859-7"),
        (EMOJI, "utf-16-le", "utf-16-le"),
        (EMOJI, "UTF8", "utf-8"),
    ],
)
def test_a_named_encoding_is_used_and_told_by_python_s_name(
    text: str, encoding: str, canonical: str
) -> None:
    assert corpus.decode(text.encode(encoding), "a.txt", encoding) == (text, canonical)


@pytest.mark.parametrize("text", [PROUST, KAFKA, CERVANTES, ENGLISH])
def test_a_paragraph_of_cp1252_is_guessed_and_the_guess_logged(
    text: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(text) > 1000
    assert corpus.decode(text.encode("cp1252"), "a.txt") == (text, "cp1252")
    assert "a.txt: not UTF-8; taken for cp1252, a guess" in caplog.text


def test_a_paragraph_of_koi8_r_is_guessed() -> None:
    assert corpus.decode(TOLSTOY.encode("koi8-r"), "a.txt") == (TOLSTOY, "koi8-r")


@pytest.mark.parametrize(
    ("sentence", "encoding"),
    [(JAPANESE, "shift_jis"), (SIMPLIFIED, "gb18030"), (TRADITIONAL, "big5")],
)
def test_a_long_text_is_guessed_from_a_sample_that_splits_no_character(
    sentence: str, encoding: str
) -> None:
    text = "".join(f"{sentence}{'x' * (n % 7)}\n" for n in range(20_000))
    data = text.encode(encoding)
    assert len(data) > 2 * corpus.SAMPLE
    assert corpus.decode(data, "a.txt")[0] == text


def test_the_sample_of_a_long_text_is_bounded_and_finds_the_few_letters_that_decide() -> None:
    text = "Nothing but ASCII is in this line.\n" * 30_000 + CERVANTES
    data = text.encode("cp1252")
    assert corpus.decode(data, "a.txt") == (text, "cp1252")
    assert len(corpus._sample(data * 3)) <= 1.1 * corpus.SAMPLE
    assert len(corpus._sample(CERVANTES.encode("cp1252") * 900)) <= 1.1 * corpus.SAMPLE


@pytest.mark.parametrize("text", [GERMAN, RUSSIAN, JAPANESE, PROUST, TOLSTOY])
@pytest.mark.parametrize("flaw", [b"\xff", b"\xe9t\xe9", b"\xed\xa0\x80"])
def test_utf_8_with_a_bad_byte_is_told_with_the_offset_and_no_reason_to_guess(
    text: str, flaw: bytes
) -> None:
    data = text.encode()
    middle = len(text[: len(text) // 2].encode())
    with pytest.raises(UserError, match=f"not utf-8: byte 0x{flaw[0]:02x} at offset {middle} "):
        corpus.decode(data[:middle] + flaw + data[middle:], "a.txt")


def test_a_lone_surrogate_does_not_pass() -> None:
    for data in (b"\xed\xa0\x80", b"plain \xed\xa0\x80 text", codecs.BOM_UTF8 + b"\xed\xa0\x80"):
        with pytest.raises(UserError, match="byte 0xed at offset"):
            corpus.decode(data, "a.txt")
    for data, encoding in (
        (b"\xed\xa0\x80", "utf-8"),
        (b"\x00\xd8", "utf-16-le"),
        (b"+2AA-", "utf-7"),
    ):
        with pytest.raises(UserError, match=f"not {encoding}: "):
            corpus.decode(data, "a.txt", encoding)


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
        ("é".encode()[:1], "utf-8", "not utf-8: byte 0xc3 at offset 0 "),
    ],
)
def test_a_byte_that_does_not_fit_is_told_with_file_and_offset(
    data: bytes, encoding: str, told: str
) -> None:
    with pytest.raises(UserError) as error:
        corpus.decode(data, "a.txt", encoding)
    message = str(error.value)
    assert message.startswith(f"a.txt: {told}")
    assert "`encoding:`" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("encoding", "told"),
    [
        ("utf-9", "did you mean `utf-8`?"),
        ("windows1252", "did you mean `cp1252`?"),
        ("koi8-x", "did you mean `koi8-"),
        ("klingon", "no encoding `klingon`"),
        ("rot13", "no encoding `rot13` of text"),
        ("hex", "no encoding `hex` of text"),
        ("undefined", "no encoding `undefined` of text"),
        ("", "no encoding `` of text"),
        ("a\0b", "no encoding"),
    ],
)
def test_an_unknown_encoding_is_told_with_the_nearest_name(encoding: str, told: str) -> None:
    with pytest.raises(UserError) as error:
        corpus.decode(b"abc", "a.txt", encoding)
    assert told in str(error.value)


@pytest.mark.parametrize(
    "data",
    [
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        b"text and one NUL\0",
        "UTF-16 without a mark".encode("utf-16-le"),
        PROUST.encode("cp1252") + b"\0",
        bytes(range(1, 256)) * 16,
        bytes(range(128, 256)) * 8,
    ],
)
def test_binary_data_is_refused(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with pytest.raises(UserError, match=r"a\.txt: binary, not text"):
        corpus.decode(data, "a.txt")
    assert caplog.text == ""


def test_nul_makes_a_text_binary_in_a_named_encoding_too() -> None:
    for encoding in ("utf-8", "cp1252", "utf-16"):
        with pytest.raises(UserError, match="binary, not text"):
            corpus.decode("a\0b".encode(encoding), "a.txt", encoding)


@pytest.mark.parametrize("data", [b"", codecs.BOM_UTF8, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_LE])
def test_an_empty_text_is_refused_with_a_mark_as_without(data: bytes) -> None:
    with pytest.raises(UserError, match=r"a\.txt: empty"):
        corpus.decode(data, "a.txt")


def test_newlines_are_left_as_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(b"dos\r\nmac\runix\n")
    assert corpus.read_text(path) == ("dos\r\nmac\runix\n", "utf-8")


def test_a_mark_stays_where_plain_utf_8_is_named() -> None:
    assert corpus.decode(codecs.BOM_UTF8 + b"a", "a.txt", "utf-8") == ("\ufeffa", "utf-8")


@given(texts)
def test_any_text_survives_utf_8(text: str) -> None:
    assert corpus.decode(text.encode(), "a.txt") == (text, "utf-8")


@given(without_nul)
def test_any_text_survives_utf_8_with_a_mark_of_which_one_is_dropped(text: str) -> None:
    assert corpus.decode(("\ufeff" + text).encode(), "a.txt") == (text, "utf-8-sig")


@given(without_nul, st.sampled_from(["utf-16", "utf-32"]))
def test_any_text_survives_utf_16_and_utf_32_with_a_mark(text: str, encoding: str) -> None:
    assert corpus.decode(text.encode(encoding), "a.txt") == (text, encoding)


@settings(deadline=None)  # charset-normalizer's first guess loads its tables
@given(st.binary(), st.sampled_from(["auto", "utf-8", "utf-16", "cp1252", "shift_jis", "utf-7"]))
def test_any_bytes_become_text_or_an_error_of_one_line(data: bytes, encoding: str) -> None:
    message = ""
    try:
        text, codec = corpus.decode(data, "a.txt", encoding)
    except UserError as error:
        message = str(error)
    if message:
        assert "\n" not in message
    else:
        assert text
        assert text == data.decode(codec)
        text.encode("utf-8")


# Reading


def test_a_text_is_read_in_the_encoding_named(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes(RUSSIAN.encode("koi8-r"))
    assert corpus.read_text(path, "koi8-r") == (RUSSIAN, "koi8-r")


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("absent.txt", "no such file; put"),
        (".", "a directory; name"),
        ("a.txt/b.txt", "Not a directory; correct"),
        ("a.txt", "binary"),
    ],
)
def test_a_file_that_cannot_be_read_is_told_with_path_and_remedy(
    tmp_path: Path, name: str, told: str
) -> None:
    (tmp_path / "a.txt").write_bytes(b"\0")
    with pytest.raises(UserError) as error:
        corpus.read_text(tmp_path / name)
    assert str(error.value).startswith(f"{tmp_path / name}: {told}")
    assert "\n" not in str(error.value)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions are POSIX's")
def test_a_file_without_permission_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("secret")
    path.chmod(0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # nobody: root may read everything
    try:
        with pytest.raises(UserError, match=f"^{path}: no permission to read it; try `chmod"):
            corpus.read_text(path)
    finally:
        os.seteuid(user)
