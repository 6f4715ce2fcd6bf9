"""Charts embedded in other pages are readable in light and dark themes."""

import pytest
from playwright.sync_api import Browser

from nanogpt.report.charts import CHARTS


def contrast(browser: Browser, picture: str, scheme: str) -> float:
    """Return the contrast between the lightest and darkest grey of a picture, 21 at most."""
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    page.set_content(
        f'<body style="background: white"><img src="data:image/svg+xml;base64,{picture}">'
    )
    page.wait_for_function("document.images[0].complete")
    lightness = page.evaluate(
        """() => {
            const image = document.images[0];
            const canvas = document.createElement("canvas");
            canvas.width = image.width; canvas.height = image.height;
            const context = canvas.getContext("2d");
            context.fillStyle = "white";
            context.fillRect(0, 0, canvas.width, canvas.height);
            context.drawImage(image, 0, 0);
            const data = context.getImageData(0, 0, canvas.width, canvas.height).data;
            let low = 255, high = 0;
            for (let i = 0; i < data.length; i += 4)
                if (data[i] === data[i + 1] && data[i] === data[i + 2]) {
                    low = Math.min(low, data[i]); high = Math.max(high, data[i]);
                }
            return [low, high];
        }"""
    )
    context.close()
    # WCAG's relative luminance of greys, without the linear part near black.
    low, high = ((value / 255) ** 2.2 for value in lightness)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("chart", CHARTS)
def test_a_chart_on_a_white_page_is_readable(browser, report, chart: str, scheme: str) -> None:
    import base64

    picture = base64.b64encode((report / f"{chart}.svg").read_bytes()).decode()
    assert contrast(browser, picture, scheme) > 7
