"""The page in a browser."""

import json
import shutil
import subprocess

import pytest

from Algorithm.Video import write_video
from Distillation.Reports.Page import write_page
from Distillation.Reports.Runs import find_runs
from tests.Distillation.made_up import write_run


def test_the_page_works_in_a_browser(tmp_path, env_and_recording):
    """Headless Chromium, where there is one: every picture and video loads, and nothing is wider than the page."""
    browser = next((path for name in ("chromium", "google-chrome") if (path := shutil.which(name))), None)
    if browser is None:
        pytest.skip("no Chromium here")
    task, _, recording = env_and_recording
    for k in range(2):
        run = write_run(tmp_path / "runs" / f"a<{k}>", run_index=k)
        write_video(run / "videos" / "final_OD.mp4", task, [1900, 1901], {"student": recording}, episodes=1)
    page = write_page(find_runs([tmp_path / "runs"]), tmp_path / "page.html")
    content = page.read_text()
    assert "http" not in content.replace("http-equiv", "")  # nothing comes from elsewhere
    probe = """<script>addEventListener("load", async () => {
      const video = document.querySelector("video");
      for (let i = 0; i < 100 && video.readyState < 1; i++) await new Promise(r => setTimeout(r, 50));
      document.title = JSON.stringify({
        pictures: [...document.images].map(i => i.complete && i.naturalWidth > 0),
        seconds: video.duration, width: video.videoWidth, rows: document.querySelectorAll("tbody tr").length,
        overflow: document.documentElement.scrollWidth > innerWidth, names: document.body.innerText});
    })</script>"""
    (tmp_path / "probe.html").write_text(content.replace("</body>", probe + "</body>"))
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += ["--disable-component-update", f"--user-data-dir={tmp_path / 'browser'}", "--virtual-time-budget=20000"]
    run = subprocess.run(
        [*command, "--dump-dom", (tmp_path / "probe.html").as_uri()], capture_output=True, text=True, timeout=120
    )
    seen = json.loads(
        run.stdout.partition("<title>")[2].partition("</title>")[0].replace("&lt;", "<").replace("&gt;", ">")
    )
    assert seen["pictures"] == [True, True]
    assert seen["seconds"] == pytest.approx(0.4, abs=0.1)
    assert seen["width"] > 400
    assert seen["rows"] == 3 + 3  # scores: and the teacher, and standing still; learning
    assert not seen["overflow"]
    assert "a<1>" in seen["names"]
