"""Excel files by the standard library: the first sheet as csv text, and a table as a sheet.

A sheet is XML in a zip archive (ECMA-376). Of an archive no more than a stated number of bytes is
unpacked, formulas are not run, and a file with a document type, where XML bombs begin, is refused.
"""

import csv
import io
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree
from xml.sax.saxutils import escape

import pandas as pd

from mutmeta_lib.errors import DataError

_MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"
_MOST_CELLS = 2_000_000
_PARTS = {
    "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/'
    'content-types"><Default Extension="rels" ContentType="application/vnd.openxmlformats-package'
    '.relationships+xml"/><Default Extension="xml" ContentType="application/xml"/><Override '
    'PartName="/xl/workbook.xml" ContentType="application/vnd.openxmlformats-officedocument.'
    'spreadsheetml.sheet.main+xml"/><Override PartName="/xl/worksheets/sheet1.xml" ContentType='
    '"application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/></Types>',
    "_rels/.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/'
    'relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/officeDocument'
    '/2006/relationships/officeDocument" Target="xl/workbook.xml"/></Relationships>',
    "xl/workbook.xml": '<workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
    ' xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"><sheets><sheet '
    'name="ranked" sheetId="1" r:id="rId1"/></sheets></workbook>',
    "xl/_rels/workbook.xml.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/'
    '2006/relationships"><Relationship Id="rId1" Type="http://schemas.openxmlformats.org/'
    'officeDocument/2006/relationships/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
}


def read_sheet(content: bytes, limit: int) -> str:
    """The first sheet of an Excel file as csv text; `DataError` for what is none, or too large."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            first = min(
                (n for n in names if re.fullmatch(r"xl/worksheets/sheet[0-9]+\.xml", n)),
                key=lambda name: (len(name), name),
            )
            shared = []
            if "xl/sharedStrings.xml" in names:
                found = _parsed(archive, "xl/sharedStrings.xml", limit).iter(f"{_MAIN}si")
                shared = [_text(one) for one in found]
            rows = list(_rows(_parsed(archive, first, limit), shared))
    except (zipfile.BadZipFile, ElementTree.ParseError, ValueError, KeyError, IndexError) as error:
        if isinstance(error, DataError):
            raise
        told = "this is no Excel file, or a damaged one"
        raise DataError(told, "save it again as xlsx, or as UTF-8 csv") from None
    except (RuntimeError, NotImplementedError, OSError, EOFError):  # encrypted, odd packing
        mend = "save it without a password as xlsx, or as UTF-8 csv"
        raise DataError("the Excel file cannot be unpacked", mend) from None
    width = max(map(len, rows), default=0)
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(row + [""] * (width - len(row)) for row in rows)
    return text.getvalue()


def _parsed(archive: zipfile.ZipFile, name: str, limit: int) -> ElementTree.Element:
    with archive.open(name) as part:
        content = part.read(limit + 1)
    if len(content) > limit:
        told = f"a sheet of the Excel file unpacks to more than {limit / 1e6:g} MB"
        raise DataError(told, "save the columns that are needed as csv")
    if b"<!DOCTYPE" in content or b"\0" in content:  # the second: hidden by another encoding
        raise DataError("the Excel file defines XML entities", "save it again as UTF-8 csv")
    return ElementTree.fromstring(content)


def _text(element: ElementTree.Element) -> str:
    """The text of a string, without its reading aids."""
    runs = [element, *element.findall(f"{_MAIN}r")]
    return "".join(run.findtext(f"{_MAIN}t") or "" for run in runs)


def _rows(sheet: ElementTree.Element, shared: list[str]) -> Iterator[list[str]]:
    total = width = 0
    for row in sheet.iter(f"{_MAIN}row"):
        cells: list[str] = []
        for cell in row.iter(f"{_MAIN}c"):
            column = len(cells)
            if letters := re.match("[A-Z]{1,3}", cell.get("r", "")):
                column = 0
                for letter in letters[0]:
                    column = 26 * column + ord(letter) - 64
                column -= 1
            width = max(width, column + 1)
            if total + width > _MOST_CELLS:
                told = f"the sheet has more than {_MOST_CELLS} cells"
                raise DataError(told, "keep the columns and rows that are needed")
            value, kind = cell.findtext(f"{_MAIN}v") or "", cell.get("t", "n")
            if kind == "s":
                value = shared[int(value)]
            elif kind == "inlineStr":
                value = "".join(map(_text, cell.findall(f"{_MAIN}is")))
            cells += [""] * (column + 1 - len(cells))
            cells[column] = value
        total += width
        yield cells


def write_sheet(path: str | Path, table: pd.DataFrame) -> None:
    """Write a table as an Excel file of one sheet; the same table gives the same bytes."""

    def cell(value: object) -> str:
        if value is None or value != value:
            return "<c/>"
        if isinstance(value, bool):
            return f'<c t="b"><v>{int(value)}</v></c>'
        if isinstance(value, int | float):
            return f"<c><v>{value!r}</v></c>"
        text = re.sub(r"[^\t\n\r\x20-\ud7ff\ue000-\ufffd]", "", str(value))
        return f'<c t="inlineStr"><is><t xml:space="preserve">{escape(text)}</t></is></c>'

    rows = [list(table.columns), *table.astype(object).to_numpy().tolist()]
    body = "".join(f"<row>{''.join(map(cell, row))}</row>" for row in rows)
    sheet = f'<worksheet xmlns="{_MAIN[1:-1]}"><sheetData>{body}</sheetData></worksheet>'
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in {**_PARTS, "xl/worksheets/sheet1.xml": sheet}.items():
            head = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
            entry = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, head + text, zipfile.ZIP_DEFLATED)
