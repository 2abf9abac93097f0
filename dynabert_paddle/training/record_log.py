"""VisualDL's log, written by the thread that logs: VisualDL's own thread only prints that a disk is full."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from dynabert_paddle.runtime.home import VISUALDL_FOLDERS, writable_home

with writable_home(*VISUALDL_FOLDERS):
    from visualdl import LogWriter
    from visualdl.writer.record_writer import RecordWriter


class RecordLog(LogWriter):
    """VisualDL's `LogWriter`, whose methods raise an OSError if a record cannot be written."""

    _file_writer: _RecordFile | None

    def _get_file_writer(self) -> _RecordFile:
        if self._file_writer is None:
            folder = Path(self._logdir)
            folder.mkdir(parents=True, exist_ok=True)
            self._file_writer = _RecordFile(folder / (self._file_name or f"vdlrecords.{time.time():010.0f}.log"))
            self._all_writers = {self._logdir: self._file_writer}
        return self._file_writer


class _RecordFile(RecordWriter):
    def __init__(self, path: Path) -> None:
        super().__init__(path.open("ab"))
        self._path = path

    def add_record(self, record: Any) -> None:
        self.write(record.SerializeToString())
        self.flush()

    def get_filename(self) -> str:
        return str(self._path)
