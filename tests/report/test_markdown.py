"""report.md has the same tables as the page, whatever their content."""

from nanogpt.report.page import write_report
from nanogpt.report.runs import read_runs
from tests.made_runs import make_run, mix_ngrams


def write(directories, destination):
    return write_report(read_runs(directories), destination)


def test_settings_that_differ_are_in_a_table(sizes_report):
    text = (sizes_report / "report.md").read_text()
    assert "| run | model.n_layer | train.seed |" in text
    assert "| s.model-large.seed-2 | 4 | 2 |" in text


def test_copying_and_kinds_of_tokens_are_in_tables(report):
    text = (report / "report.md").read_text()
    assert "| demo | 90.0 % | 25.0 % | 0.0 % | 80.0 % | 20.0 % | – |" in text  # noqa: RUF001
    assert "| demo | 0.612 (70 %) | 0.612 (30 %) |" in text


def test_samples_with_other_settings_are_shown_side_by_side(tmp_path):
    runs = [
        make_run(tmp_path, name, sample=f"text of {name}", sampling={"top_k": top_k})
        for name, top_k in (("cold", 1), ("hot", 2), ("again", 2))
    ]
    write(runs, tmp_path / "report")
    text = (tmp_path / "report/report.md").read_text()
    assert "text of cold" in text
    assert "text of hot" in text
    assert "text of again" not in text


def test_special_characters_do_not_break_tables(tmp_path):
    run = make_run(tmp_path, "a", sampling={"start": "two\nlines | a bar"})
    write([run, make_run(tmp_path, "b")], tmp_path / "report")
    assert "two\\nlines \\| a bar" in (tmp_path / "report/report.md").read_text()


def test_a_diverged_run_is_never_the_best(tmp_path):
    runs = [make_run(tmp_path, "good", val_loss=0.7), make_run(tmp_path, "bad", diverges_at=300)]
    write(runs, tmp_path / "report")
    assert "bits per byte, good" in (tmp_path / "report/report.md").read_text()


def test_a_loss_with_ngrams_is_never_shown_as_the_gpts_own(tmp_path):
    alone = make_run(tmp_path, "alone", sample="text of alone")
    mixed = make_run(tmp_path, "mixed", sample="text of mixed")
    mix_ngrams(mixed, 0.5)
    write([alone, mixed], tmp_path / "report")
    text = (tmp_path / "report/report.md").read_text()
    assert "- play: 0.880 bits per byte, alone; GPT with n-grams: 0.880, mixed" in text
    assert "| GPT with n-grams: val loss (nats/token) |" in text
    assert "### alone\n" in text
    assert "### mixed, with n-grams\n" in text
