/*
 * contact_csv_io.c
 *		CSV in SQL: csv_lines and contact_from_csv.
 *
 * The splitter is RFC 4180 with what real files do to it: a byte order mark,
 * Excel's first line "sep=;", line ends of all kinds, blank lines, and quotes
 * within a field that did not begin with one, which are then plain characters.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

#include "compat.h"
#include "contact/contact_csv.h"
#include "contact/contact_vcard.h"

PG_FUNCTION_INFO_V1(contact_csv_lines_text);
PG_FUNCTION_INFO_V1(contact_csv_lines_bytea);
PG_FUNCTION_INFO_V1(contact_from_csv);
PG_FUNCTION_INFO_V1(contact_csv_fields);

/* ---- csv_lines ---- */

typedef struct CsvReader
{
	const char *ptr;
	int			len;
	int			at;
	int			line;			/* of the text, from 1 */
	char		delimiter;
	Datum	   *fields;
	int			nfields;
	int			maxfields;
} CsvReader;

/* Step over a line end, if one is here. */
static bool
skip_line_end(CsvReader *r)
{
	if (r->at >= r->len || (r->ptr[r->at] != '\r' && r->ptr[r->at] != '\n'))
		return false;
	if (r->ptr[r->at] == '\r' && r->at + 1 < r->len && r->ptr[r->at + 1] == '\n')
		r->at++;
	r->at++;
	r->line++;
	return true;
}

/*
 * The delimiter: as "sep=" says, else the one of comma, semicolon and tab that
 * the first line has most of outside quotes.
 */
static char
find_delimiter(CsvReader *r)
{
	int			comma = 0;
	int			semicolon = 0;
	int			tab = 0;
	bool		quoted = false;

	if (r->len >= 5 && pg_strncasecmp(r->ptr, "sep=", 4) == 0 && !IS_HIGHBIT_SET(r->ptr[4]) &&
		(r->len == 5 || r->ptr[5] == '\r' || r->ptr[5] == '\n'))
	{
		r->at = 5;
		(void) skip_line_end(r);
		return r->ptr[4];
	}
	for (int i = 0; i < r->len; i++)
	{
		char		c = r->ptr[i];

		if (c == '"')
			quoted = !quoted;
		else if (!quoted && (c == '\r' || c == '\n'))
			break;
		else if (!quoted)
		{
			comma += c == ',';
			semicolon += c == ';';
			tab += c == '\t';
		}
	}
	if (tab > comma && tab >= semicolon)
		return '\t';
	return semicolon > comma ? ';' : ',';
}

/* The text of a field that begins with a quote; at is behind that. */
static text *
read_quoted(CsvReader *r)
{
	int			begun = r->line;
	StringInfoData buf;
	text	   *result;

	initStringInfo(&buf);
	for (;;)
	{
		const char *quote = r->at < r->len ? memchr(r->ptr + r->at, '"', r->len - r->at) : NULL;

		if (quote == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
					 errmsg("unterminated quoted field in CSV text"),
					 errdetail("It begins in line %d.", begun)));
		for (const char *p = r->ptr + r->at; p < quote; p++)
			if (*p == '\n' || (*p == '\r' && p[1] != '\n'))
				r->line++;
		appendBinaryStringInfo(&buf, r->ptr + r->at, quote - (r->ptr + r->at));
		r->at = quote - r->ptr + 1;
		if (r->at >= r->len || r->ptr[r->at] != '"')
			break;
		appendStringInfoChar(&buf, '"');
		r->at++;
	}
	/* what stands between the closing quote and the delimiter belongs to it */
	while (r->at < r->len && r->ptr[r->at] != r->delimiter &&
		   r->ptr[r->at] != '\r' && r->ptr[r->at] != '\n')
		appendStringInfoCharMacro(&buf, r->ptr[r->at++]);
	result = cstring_to_text_with_len(buf.data, buf.len);
	pfree(buf.data);
	return result;
}

static text *
read_field(CsvReader *r)
{
	int			start = r->at;

	if (r->at < r->len && r->ptr[r->at] == '"')
	{
		r->at++;
		return read_quoted(r);
	}
	while (r->at < r->len && r->ptr[r->at] != r->delimiter &&
		   r->ptr[r->at] != '\r' && r->ptr[r->at] != '\n')
		r->at++;
	return cstring_to_text_with_len(r->ptr + start, r->at - start);
}

/* The fields of the next line that is not blank; false at the end. */
static bool
read_line(CsvReader *r)
{
	while (skip_line_end(r))
		;
	if (r->at >= r->len)
		return false;
	r->nfields = 0;
	for (;;)
	{
		if (r->nfields == CONTACT_MAX_ITEMS)
			ereport(ERROR,
					(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
					 errmsg("line %d of CSV text has too many fields", r->line),
					 errdetail("It may have %d.", CONTACT_MAX_ITEMS)));
		if (r->nfields == r->maxfields)
		{
			r->maxfields *= 2;
			r->fields = repalloc(r->fields, sizeof(Datum) * r->maxfields);
		}
		r->fields[r->nfields++] = PointerGetDatum(read_field(r));
		if (r->at >= r->len || r->ptr[r->at] != r->delimiter)
			break;
		r->at++;
	}
	(void) skip_line_end(r);
	return true;
}

static char
delimiter_argument(FunctionCallInfo fcinfo)
{
	text	   *delimiter;

	if (PG_ARGISNULL(1))
		return '\0';
	delimiter = PG_GETARG_TEXT_PP(1);
	if (VARSIZE_ANY_EXHDR(delimiter) != 1 || strchr("\"\r\n", *VARDATA_ANY(delimiter)) != NULL ||
		IS_HIGHBIT_SET(*VARDATA_ANY(delimiter)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a CSV delimiter must be a single one-byte character, and no quote or line end")));
	return *VARDATA_ANY(delimiter);
}

static Datum
csv_lines(FunctionCallInfo fcinfo, const char *ptr, int len)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	CsvReader	r = {0};
	MemoryContext context;
	MemoryContext caller;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	if (len >= 3 && memcmp(ptr, "\xEF\xBB\xBF", 3) == 0)
	{
		ptr += 3;
		len -= 3;
	}
	r.ptr = ptr;
	r.len = len;
	r.line = 1;
	r.maxfields = 64;
	r.fields = palloc(sizeof(Datum) * r.maxfields);
	r.delimiter = find_delimiter(&r);
	if (delimiter_argument(fcinfo) != '\0')
		r.delimiter = delimiter_argument(fcinfo);

	context = AllocSetContextCreate(CurrentMemoryContext, "CSV", ALLOCSET_DEFAULT_SIZES);
	caller = MemoryContextSwitchTo(context);
	while (read_line(&r))
	{
		Datum		values[1];
		bool		nulls[1] = {false};

		CHECK_FOR_INTERRUPTS();
		values[0] = PointerGetDatum(construct_array(r.fields, r.nfields, TEXTOID, -1, false, TYPALIGN_INT));
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		MemoryContextReset(context);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
	return (Datum) 0;
}

/*
 * csv_lines(text, delimiter text) -> setof text[]
 */
Datum
contact_csv_lines_text(PG_FUNCTION_ARGS)
{
	text	   *content;

	if (PG_ARGISNULL(0))
		return csv_lines(fcinfo, "", 0);
	content = PG_GETARG_TEXT_PP(0);
	return csv_lines(fcinfo, VARDATA_ANY(content), VARSIZE_ANY_EXHDR(content));
}

/*
 * csv_lines(bytea, delimiter text) -> setof text[]
 *
 * UTF-16 is known by its byte order mark; what is not UTF-8 is Windows-1252.
 */
Datum
contact_csv_lines_bytea(PG_FUNCTION_ARGS)
{
	VcardReader reader;
	StrView		s;
	StrView		none = {NULL, 0};
	bytea	   *file;

	if (PG_ARGISNULL(0))
		return csv_lines(fcinfo, "", 0);
	file = PG_GETARG_BYTEA_PP(0);
	contact_vcard_open(&reader, VARDATA_ANY(file), VARSIZE_ANY_EXHDR(file));
	s = strview(reader.ptr, reader.len);
	if (memchr(s.ptr ? s.ptr : "", '\0', s.len) != NULL)
		ereport(ERROR,
				(errcode(ERRCODE_CHARACTER_NOT_IN_REPERTOIRE),
				 errmsg("CSV file contains null bytes"),
				 errhint("It may be UTF-16 without a byte order mark, or no CSV file.")));
	/* bytes that say where the text begins are no text */
	if (s.len >= 3 && memcmp(s.ptr, "\xEF\xBB\xBF", 3) == 0)
		s = strview(s.ptr + 3, s.len - 3);
	if (s.len > 0 && !contact_vcard_decode(&s, none))
		ereport(ERROR,
				(errcode(ERRCODE_UNTRANSLATABLE_CHARACTER),
				 errmsg("CSV file has characters that the database's encoding lacks")));
	return csv_lines(fcinfo, s.ptr ? s.ptr : "", s.len);
}

/* ---- contact_from_csv ---- */

/* The header of the last call, and what its columns mean. */
typedef struct CsvHeader
{
	bytea	   *bytes;			/* the array as it came */
	CsvColumn  *columns;
	int			ncolumns;
	MemoryContext context;
} CsvHeader;

static StrView *
text_array(ArrayType *array, int *n)
{
	Datum	   *values;
	bool	   *nulls;
	StrView    *result;

	if (ARR_NDIM(array) > 1)
		ereport(ERROR,
				(errcode(ERRCODE_ARRAY_SUBSCRIPT_ERROR),
				 errmsg("header and line must be one-dimensional arrays")));
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &values, &nulls, n);
	if (*n > CONTACT_MAX_ITEMS || VARSIZE_ANY_EXHDR(array) > CONTACT_MAX_SIZE)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("CSV line is too large"),
				 errdetail("It may have %d fields and %d bytes.", CONTACT_MAX_ITEMS, CONTACT_MAX_SIZE)));
	result = palloc0(sizeof(StrView) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
		if (!nulls[i])
			result[i] = strview(VARDATA_ANY(DatumGetPointer(values[i])),
								VARSIZE_ANY_EXHDR(DatumGetPointer(values[i])));
	return result;
}

/* Files have many lines and one header. */
static CsvHeader *
header_of(FunctionCallInfo fcinfo)
{
	CsvHeader  *header = fcinfo->flinfo->fn_extra;
	ArrayType  *array = PG_GETARG_ARRAYTYPE_P(0);
	MemoryContext caller;
	StrView    *names;

	if (header && header->bytes && VARSIZE(header->bytes) == VARSIZE(array) &&
		memcmp(header->bytes, array, VARSIZE(array)) == 0)
		return header;
	if (header == NULL)
	{
		header = MemoryContextAllocZero(fcinfo->flinfo->fn_mcxt, sizeof(CsvHeader));
		header->context = AllocSetContextCreate(fcinfo->flinfo->fn_mcxt, "CSV header",
												ALLOCSET_SMALL_SIZES);
		fcinfo->flinfo->fn_extra = header;
	}
	header->bytes = NULL;
	MemoryContextReset(header->context);
	caller = MemoryContextSwitchTo(header->context);
	names = text_array(array, &header->ncolumns);
	header->columns = palloc(sizeof(CsvColumn) * Max(header->ncolumns, 1));
	contact_csv_resolve(names, header->ncolumns, header->columns);
	header->bytes = memcpy(palloc(VARSIZE(array)), array, VARSIZE(array));
	MemoryContextSwitchTo(caller);
	return header;
}

/*
 * contact_from_csv(header text[], line text[], date_order text) -> contact
 */
Datum
contact_from_csv(PG_FUNCTION_ARGS)
{
	CsvHeader  *header = header_of(fcinfo);
	int			n;
	StrView    *values = text_array(PG_GETARG_ARRAYTYPE_P(1), &n);
	char	   *order = text_to_cstring(PG_GETARG_TEXT_PP(2));
	ContactValue v;

	if (pg_strcasecmp(order, "mdy") != 0 && pg_strcasecmp(order, "dmy") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown date order \"%s\"", order),
				 errhint("It is \"mdy\" or \"dmy\", and counts where 1/2/1980 does not show it.")));
	contact_csv_map(header->columns, header->ncolumns, values, n, pg_strcasecmp(order, "mdy") == 0, &v);
	PG_RETURN_CONTACT_P(contact_form(&v));
}

/*
 * _csv_fields(header text[]) -> text[]
 *		The fields that a file with this header speaks about.
 */
Datum
contact_csv_fields(PG_FUNCTION_ARGS)
{
	CsvHeader  *header = header_of(fcinfo);
	bool		fields[CF_COUNT] = {false};
	ArrayBuildState *result = initArrayResult(TEXTOID, CurrentMemoryContext, false);

	for (int i = 0; i < header->ncolumns; i++)
	{
		const CsvColumn *column = &header->columns[i];

		switch (column->what)
		{
			case CSV_EMAIL:
				fields[CF_EMAILS] = true;
				break;
			case CSV_PHONE:
				fields[CF_PHONES] = true;
				break;
			case CSV_URL:
				fields[CF_URLS] = true;
				break;
			case CSV_ADDRESS:
				fields[CF_ADDRESSES] = true;
				break;
			case CSV_TAGS:
				fields[CF_TAGS] = true;
				break;
			case CSV_BIRTH:
				fields[CF_BIRTHDAY] = true;
				break;
			case CSV_SCALAR:
				fields[column->sub] = true;
				break;
			case CSV_NAME:
				fields[CF_FIRST_NAME] = fields[CF_MIDDLE_NAME] = fields[CF_LAST_NAME] = true;
				break;
			default:
				break;
		}
	}
	/* a value that its field has no room for, and one without a field, is metadata under its column's name */
	for (int i = 0; i < header->ncolumns; i++)
	{
		StrView		key = header->columns[i].key;

		if (key.len > 0)
			result = accumArrayResult(result, CStringGetTextDatum(psprintf("metadata.%.*s", key.len, key.ptr)), false, TEXTOID, CurrentMemoryContext);
	}
	for (int i = 0; i < CF_COUNT; i++)
		if (fields[i])
			result = accumArrayResult(result, CStringGetTextDatum(contact_field_names[i]), false, TEXTOID, CurrentMemoryContext);
	PG_RETURN_DATUM(makeArrayResult(result, CurrentMemoryContext));
}
