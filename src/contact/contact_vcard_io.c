/*
 * contact_vcard_io.c
 *		vCards in SQL: from_vcard and to_vcard.
 */
#include "postgres.h"

#include <ctype.h>

#include "funcapi.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/tuplestore.h"

#include "compat.h"
#include "contact/contact.h"

#define FROM_VCARD_MAX		(16 * 1024 * 1024)

PG_FUNCTION_INFO_V1(contact_from_vcard_text);
PG_FUNCTION_INFO_V1(contact_from_vcard_bytea);
PG_FUNCTION_INFO_V1(contact_vcard_cards);
PG_FUNCTION_INFO_V1(contact_to_vcard_sql);

static Datum
from_vcard(FunctionCallInfo fcinfo, const char *ptr, int len, bool is_text)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	MemoryContext context;
	MemoryContext caller;
	VcardReader reader;
	int			cards = 0;
	int64		skipped = 0;
	int			limited = 0;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	contact_vcard_open(&reader, ptr, len);
	reader.text |= is_text;
	reader.keep_uid = true;
	context = AllocSetContextCreate(CurrentMemoryContext, "vCard", ALLOCSET_DEFAULT_SIZES);
	caller = MemoryContextSwitchTo(context);
	for (;;)
	{
		ContactValue v;
		Datum		values[1];
		bool		nulls[1] = {false};

		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(context);
		if (!contact_vcard_next(&reader, &v))
			break;
		values[0] = PointerGetDatum(contact_form(&v));
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		cards++;
		skipped += reader.skipped;
		limited += reader.limit;
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
	if (skipped > 0 || limited > 0)
		ereport(NOTICE,
				(errmsg("parts of the vCards were not read"),
				 errdetail("Cards: %d, lines left out: %lld, cards above a limit: %d.",
						   cards, (long long) skipped, limited)));
	return (Datum) 0;
}

/*
 * from_vcard(text) -> setof contact
 */
Datum
contact_from_vcard_text(PG_FUNCTION_ARGS)
{
	text	   *card = PG_GETARG_TEXT_PP(0);
	char	   *ptr = VARDATA_ANY(card);
	int			len = VARSIZE_ANY_EXHDR(card);
	char	   *utf8;
	bool		known = GetDatabaseEncoding() != PG_SQL_ASCII;

	if (len > FROM_VCARD_MAX)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("vCard text is too large"),
				 errdetail("It may have %d bytes.", FROM_VCARD_MAX),
				 errhint("Pass the file's bytes as bytea, or in parts.")));
	if (known && len > 0)
	{
		utf8 = pg_server_to_any(ptr, len, PG_UTF8);
		if (utf8 != ptr)
			len = strlen(utf8);
		ptr = utf8;
	}
	return from_vcard(fcinfo, ptr, len, known);
}

/*
 * from_vcard(bytea) -> setof contact
 */
Datum
contact_from_vcard_bytea(PG_FUNCTION_ARGS)
{
	bytea	   *card = PG_GETARG_BYTEA_PP(0);

	return from_vcard(fcinfo, VARDATA_ANY(card), VARSIZE_ANY_EXHDR(card), false);
}

/* Does a card, less what is blank behind it, end as one does? */
static bool
has_end(const char *ptr, int len)
{
	while (len > 0 && isspace((unsigned char) ptr[len - 1]))
		len--;
	return len >= 9 && pg_strncasecmp(ptr + len - 9, "END:VCARD", 9) == 0;
}

/*
 * _file_cards(bytea) -> setof (raw text, uid text, contact, ended boolean)
 *		The cards of a file as they stand in it.  One that is not UTF-8 has no text.
 */
Datum
contact_vcard_cards(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	bytea	   *file = PG_GETARG_BYTEA_PP(0);
	MemoryContext context;
	MemoryContext caller;
	VcardReader reader;
	int			from;

	InitMaterializedSRF(fcinfo, 0);
	contact_vcard_open(&reader, VARDATA_ANY(file), VARSIZE_ANY_EXHDR(file));
	context = AllocSetContextCreate(CurrentMemoryContext, "vCard", ALLOCSET_DEFAULT_SIZES);
	caller = MemoryContextSwitchTo(context);
	for (from = reader.at;; from = reader.at)
	{
		ContactValue v;
		Datum		values[4] = {0};
		bool		nulls[4] = {true, true, false, false};
		int			len;

		CHECK_FOR_INTERRUPTS();
		MemoryContextReset(context);
		if (!contact_vcard_next(&reader, &v))
			break;
		/* what stands before it is no part of it */
		while (from < reader.at - 11 && pg_strncasecmp(reader.ptr + from, "BEGIN:VCARD", 11) != 0)
			from++;
		len = reader.at - from;
		if (GetDatabaseEncoding() == PG_UTF8 && memchr(reader.ptr + from, '\0', len) == NULL &&
			pg_verify_mbstr(PG_UTF8, reader.ptr + from, len, true))
		{
			values[0] = PointerGetDatum(cstring_to_text_with_len(reader.ptr + from, len));
			nulls[0] = false;
		}
		if (reader.uid.len > 0)
		{
			values[1] = PointerGetDatum(cstring_to_text_with_len(reader.uid.ptr, reader.uid.len));
			nulls[1] = false;
		}
		values[2] = PointerGetDatum(contact_form(&v));
		values[3] = BoolGetDatum(has_end(reader.ptr + from, len));
		tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
	}
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(context);
	return (Datum) 0;
}

/*
 * to_vcard(contact, version text) -> text
 */
Datum
contact_to_vcard_sql(PG_FUNCTION_ARGS)
{
	ContactValue v;
	char	   *version = text_to_cstring(PG_GETARG_TEXT_PP(1));
	StringInfoData buf;

	if (strcmp(version, "3.0") != 0 && strcmp(version, "4.0") != 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unsupported vCard version \"%s\"", version),
				 errhint("Versions 3.0 and 4.0 can be written; from_vcard reads 2.1 too.")));
	contact_deform(PG_GETARG_CONTACT_P(0), &v);
	initStringInfo(&buf);
	contact_to_vcard(&buf, &v, version[0] == '4' ? 40 : 30);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(buf.data, buf.len));
}
