"""The page of flags."""

from docs import flags


def test_the_page_is_what_the_command_writes():
    assert flags.PAGE.read_text(encoding="utf-8") == flags.page(), "python docs/flags.py writes it anew"
