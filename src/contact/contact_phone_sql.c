/*
 * contact_phone_sql.c
 *		The SQL functions on telephone numbers.
 *
 * They are immutable: an answer depends on its arguments and on the numbering
 * plans compiled in.
 */
#include "postgres.h"

#include "fmgr.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"

#include "compat.h"
#include "contact/contact_phone.h"

PG_FUNCTION_INFO_V1(contact_phone_normalize);
PG_FUNCTION_INFO_V1(contact_phone_status);
PG_FUNCTION_INFO_V1(contact_phone_extension);
PG_FUNCTION_INFO_V1(contact_phone_version);

/* Read the number and region of a call; false if the number is NULL. */
static bool
read_arguments(FunctionCallInfo fcinfo, ContactPhone *phone)
{
	int			region = CONTACT_PHONE_NO_REGION;
	text	   *number;

	if (!PG_ARGISNULL(1))
	{
		text	   *code = PG_GETARG_TEXT_PP(1);

		region = contact_phone_region(VARDATA_ANY(code), VARSIZE_ANY_EXHDR(code));
		if (region == CONTACT_PHONE_BAD_REGION)
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("unknown region: \"%s\"", text_to_cstring(code)),
					 errhint("Regions are ISO 3166-1 codes of two letters, such as GB; NULL or ZZ is none.")));
	}
	if (PG_ARGISNULL(0))
		return false;
	number = PG_GETARG_TEXT_PP(0);
	contact_phone_parse(VARDATA_ANY(number), VARSIZE_ANY_EXHDR(number), region,
						GetDatabaseEncoding() == PG_UTF8, phone);
	return true;
}

/*
 * normalize_phone(number text, region text) returns text
 */
Datum
contact_phone_normalize(PG_FUNCTION_ARGS)
{
	ContactPhone phone;
	char		e164[sizeof(phone.digits) + 1];

	if (!read_arguments(fcinfo, &phone) || phone.status == CONTACT_PHONE_UNPARSED)
		PG_RETURN_NULL();
	snprintf(e164, sizeof(e164), "+%s", phone.digits);
	PG_RETURN_TEXT_P(cstring_to_text(e164));
}

/*
 * phone_status(number text, region text) returns text
 */
Datum
contact_phone_status(PG_FUNCTION_ARGS)
{
	static const char *const names[] = {
		[CONTACT_PHONE_UNPARSED] = "unparsed",
		[CONTACT_PHONE_POSSIBLE] = "possible",
		[CONTACT_PHONE_VALID] = "valid"
	};
	ContactPhone phone;

	if (!read_arguments(fcinfo, &phone))
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text(names[phone.status]));
}

/*
 * phone_extension(number text, region text) returns text
 */
Datum
contact_phone_extension(PG_FUNCTION_ARGS)
{
	ContactPhone phone;

	if (!read_arguments(fcinfo, &phone) || phone.extension_len == 0)
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text_with_len(phone.extension, phone.extension_len));
}

/*
 * phone_metadata_version() returns text
 */
Datum
contact_phone_version(PG_FUNCTION_ARGS)
{
	PG_RETURN_TEXT_P(cstring_to_text(contact_phone_metadata));
}
