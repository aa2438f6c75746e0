"""Looks at the site as a telephone and as a desk show it, in Chromium: nothing may be wider than the window.

    pip install playwright                              # Chromium itself must be there
    python tools/screenshots.py build/site [FOLDER]     # pictures of some pages go to FOLDER

Prints the pages that are too wide, with what on them is, and fails if there are any.
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

WIDTHS = (360, 1280)
SHOWN = [
    *("index", "README", "choosing", "coming_from", "cross_entropy", "performance"),
    *("api/xent", "api/xent.cross_entropy", "gallery/index", "gallery/iris"),
]
# What reaches beyond the window, but for what scrolls inside a box of its own.
WIDE = """[...document.querySelectorAll('article, article *, .bd-sidebar-secondary a')]
    .filter(e => e.getBoundingClientRect().right > innerWidth || e.scrollWidth > innerWidth)
    .filter(e => !e.closest('.pst-scrollable-table-container, .formula, pre, p:has(> img)'))
    .slice(0, 3).map(e => e.outerHTML.slice(0, 100))"""


def main(site, pictures=None):
    site, too_wide = Path(site).resolve(), 0
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        for width in WIDTHS:
            page = browser.new_page(viewport={"width": width, "height": 800})
            for path in sorted(path for path in site.rglob("*.html") if "_static" not in path.parts):
                page.goto(path.as_uri())
                wide = page.evaluate(WIDE)
                if wide or page.evaluate("document.documentElement.scrollWidth > innerWidth"):
                    too_wide += 1
                    print(f"{path.relative_to(site)} at {width} pixels:", *wide, sep="\n    ")
            page.close()
        if pictures:
            take(browser, site, Path(pictures))
        browser.close()
    return 1 if too_wide else 0


def take(browser, site, folder):
    """Pictures of some pages, in both widths, light and dark."""
    folder.mkdir(parents=True, exist_ok=True)
    for width in WIDTHS:
        for scheme in ("light", "dark"):
            page = browser.new_page(viewport={"width": width, "height": 1600}, color_scheme=scheme)
            for name in SHOWN:
                page.goto((site / f"{name}.html").as_uri())
                page.screenshot(path=folder / f"{name.replace('/', '_')}-{width}-{scheme}.png")
            page.close()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
