"""A line of a service's log."""

import json
import logging

from models.json_log import JsonFormatter

RECORD = logging.LogRecord("stream", logging.INFO, "file", 1, "assigned %d", (4,), None)


def test_a_line_has_time_level_logger_and_message() -> None:
    """And nothing else where nothing else is said."""
    line = json.loads(JsonFormatter().format(RECORD))
    assert line.keys() == {"time", "level", "logger", "message"}
    assert (line["level"], line["logger"], line["message"]) == ("INFO", "stream", "assigned 4")


def test_a_line_says_whose_it_is_where_several_write_to_one_stream() -> None:
    """By what its formatter was given."""
    line = json.loads(JsonFormatter({"worker": "2"}).format(RECORD))
    assert line["worker"] == "2"
    assert line["message"] == "assigned 4"
