"""Look at the built site as a reader does: links, a browser at two widths, and axe-core's rules of accessibility.

``make docs-check`` builds the site and runs this. It needs Chromium; CHROMIUM names it where it is not found. Pages of
single objects are all alike, so the browser opens one in twenty of them unless ``--all`` is given. Links are checked
on every page.
"""

import argparse
import functools
import os
import shutil
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urldefrag, urlsplit

from axe_playwright_python.sync_playwright import Axe
from bs4 import BeautifulSoup
from playwright.sync_api import Browser, Page, sync_playwright

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
# A desktop reads in the light and a phone in the dark, so that the contrast of both is measured.
SCREENS = {"desktop": (1280, 900, "light"), "phone": (390, 844, "dark")}
ALIKE, ONE_IN = ("api", "_modules"), 20
TYPESET = "() => window.MathJax?.startup?.promise?.then(() => true) ?? true"
# What sticks out to the right of the screen and is in no box that scrolls by itself.
STICKS_OUT = """() => {
    const width = document.documentElement.clientWidth;
    const scrolls = e => e && e !== document.body && (
        !["visible", "clip"].includes(getComputedStyle(e).overflowX) || scrolls(e.parentElement));
    if (document.documentElement.scrollWidth <= width) return [];
    const wide = [...document.body.querySelectorAll("*")].filter(
        e => e.getBoundingClientRect().right > width + 1 && !scrolls(e));
    return wide.slice(0, 3).map(e => e.outerHTML.slice(0, 100));
}"""


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None: ...


@contextmanager
def served(site: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=site))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def pages_of(site: Path) -> list[Path]:
    """Return the pages; the theme keeps templates of its own among the static files."""
    return sorted(path for path in site.rglob("*.html") if "_static" not in path.relative_to(site).parts)


def broken_links(site: Path) -> tuple[int, list[str]]:
    """Return how many links within the site there are, and those that lead nowhere."""
    pages = {path: BeautifulSoup(path.read_bytes(), "lxml") for path in pages_of(site)}
    anchors = {path: {tag["id"] for tag in page.find_all(id=True)} for path, page in pages.items()}
    count, broken = 0, []
    for path, page in pages.items():
        for tag in page.find_all(["a", "img", "link", "script"]):
            target = tag.get("href") or tag.get("src")
            if not target or urlsplit(target).scheme:
                continue
            count += 1
            place, anchor = urldefrag(target)
            if "_modules" in path.parts:  # viewcode's way back finds the page, but not always the place on it
                anchor = ""
            file = (path.parent / unquote(urlsplit(place).path)).resolve() if place else path.resolve()
            file = file / "index.html" if file.is_dir() else file
            known = anchors.get(file)
            if not file.is_file() or (anchor and known is not None and unquote(anchor) not in known):
                broken.append(f"{path.relative_to(site)}: {target}")
    return count, broken


def chosen(site: Path, everything: bool) -> list[str]:
    pages = [str(path.relative_to(site)) for path in pages_of(site)]
    alike = [page for page in pages if page.startswith(ALIKE)]
    return [page for page in pages if page not in alike] + (alike if everything else alike[::ONE_IN])


def faults_of(page: Page, address: str, name: str, picture: Path) -> Iterator[str]:
    """Open a page, take its picture, and tell what is wrong with it."""
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: None if request.url.startswith((address, "data:")) else said.append(request.url))
    page.goto(f"{address}/{name}", wait_until="load")
    page.evaluate(TYPESET)
    yield from (f"console or network: {line}" for line in said)
    yield from (f"wider than the screen: {tag}" for tag in page.evaluate(STICKS_OUT))
    picture.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=picture, full_page=True)
    for violation in Axe().run(page).response["violations"]:
        where = "; ".join(node["html"][:120] for node in violation["nodes"][:2])
        yield f"axe {violation['impact']}: {violation['id']}, {len(violation['nodes'])} times: {where}"


def visit(browser: Browser, address: str, names: Iterable[str], pictures: Path) -> list[str]:
    found = []
    for screen, (width, height, scheme) in SCREENS.items():
        for name in names:
            page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme)
            picture = pictures / screen / Path(name).with_suffix(".png")
            found += [f"{screen}, {name}: {fault}" for fault in faults_of(page, address, name, picture)]
            page.close()
    return found


def is_grave(fault: str) -> bool:
    return "axe minor" not in fault and "axe moderate" not in fault


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("site", nargs="?", type=Path, default=Path(__file__).parent / "_build" / "html")
    parser.add_argument("--pictures", type=Path, default=Path(__file__).parent / "_build" / "pictures")
    parser.add_argument("--all", action="store_true", help="open every page, those of single objects too")
    parser.add_argument("--only", nargs="*", metavar="PAGE", help="open these alone, such as index.html")
    options = parser.parse_args()

    count, faults = broken_links(options.site)
    print(f"{count} links within the site, {len(faults)} broken")
    names = options.only or chosen(options.site, options.all)
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        parser.error(f"none of {', '.join(BROWSERS)} is installed; CHROMIUM may name another")
    with served(options.site) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS)
        seen = visit(browser, address, names, options.pictures)
        browser.close()
    print(*faults, *seen, sep="\n")
    grave = faults + [fault for fault in seen if is_grave(fault)]
    remarks = len(faults + seen) - len(grave)
    print(f"{len(names)} pages at {len(SCREENS)} widths: {len(grave)} faults, {remarks} remarks")
    return 1 if grave else 0


if __name__ == "__main__":
    sys.exit(main())
