"""What a step decided: plain data, to print, to log and to keep."""

from gradsurgery.record.group import GroupRecord, group_record
from gradsurgery.record.step import Record

__all__ = ["GroupRecord", "Record", "group_record"]
