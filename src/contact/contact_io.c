/*
 * contact_io.c
 *		Text, binary and jsonb forms of a contact.
 *
 * The text form is JSON and self-contained: provenance included, it reads back
 * to the same bytes.  The binary form is a version byte and that text, as with
 * jsonb, so that whatever a client sends goes through one parser.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "libpq/pqformat.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"

#include "compat.h"
#include "contact/contact.h"

#define WIRE_VERSION	1

PG_FUNCTION_INFO_V1(contact_in);
PG_FUNCTION_INFO_V1(contact_out);
PG_FUNCTION_INFO_V1(contact_recv);
PG_FUNCTION_INFO_V1(contact_send);
PG_FUNCTION_INFO_V1(contact_to_jsonb);
PG_FUNCTION_INFO_V1(contact_of_jsonb);

void
contact_error_report(const ContactError *error, struct Node *escontext)
{
	errsave(escontext,
			(errcode(error->limit ? ERRCODE_PROGRAM_LIMIT_EXCEEDED :
					 ERRCODE_INVALID_TEXT_REPRESENTATION),
			 errmsg("invalid contact: %s", error->message),
			 errdetail("JSON path: %s", error->path)));
}

Contact *
contact_from_jsonb(const Jsonb *json, struct Node *escontext)
{
	ContactClaims claims;
	ContactError error;

	if (!contact_claims_from_jsonb(json, false, &claims, &error) ||
		!contact_stamps_from_jsonb(json, &claims.value, &error) ||
		!contact_fits(&claims.value, &error))
	{
		contact_error_report(&error, escontext);
		return NULL;
	}
	return contact_form(&claims.value);
}

static Contact *
contact_from_text(char *text, struct Node *escontext)
{
	Size		len = strlen(text);
	ContactValue usual;
	Datum		json;

	if (len > CONTACT_MAX_TEXT)
		ereturn(escontext, NULL,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("contact is too large"),
				 errdetail("Its text may have %d bytes.", CONTACT_MAX_TEXT)));
	if (contact_parse(text, len, &usual))
		return contact_form(&usual);	/* too short not to fit */
#if PG_VERSION_NUM >= 160000
	if (!DirectInputFunctionCallSafe(jsonb_in, text, InvalidOid, -1, escontext, &json))
		return NULL;
#else
	json = DirectFunctionCall1(jsonb_in, CStringGetDatum(text));
#endif
	return contact_from_jsonb(DatumGetJsonbP(json), escontext);
}

/*
 * contact_in(cstring) -> contact
 */
Datum
contact_in(PG_FUNCTION_ARGS)
{
	Contact    *c = contact_from_text(PG_GETARG_CSTRING(0), fcinfo->context);

	if (c == NULL)
		PG_RETURN_NULL();
	PG_RETURN_CONTACT_P(c);
}

static char *
contact_text(const Contact *c, bool with_provenance, int *len)
{
	ContactValue v;
	StringInfoData buf;

	contact_deform(c, &v);
	initStringInfo(&buf);
	contact_to_json(&buf, &v, with_provenance);
	if (len)
		*len = buf.len;
	return buf.data;
}

/*
 * contact_out(contact) -> cstring
 */
Datum
contact_out(PG_FUNCTION_ARGS)
{
	PG_RETURN_CSTRING(contact_text(PG_GETARG_CONTACT_P(0), true, NULL));
}

/*
 * contact_recv(internal) -> contact
 */
Datum
contact_recv(PG_FUNCTION_ARGS)
{
	StringInfo	buf = (StringInfo) PG_GETARG_POINTER(0);
	int			version = pq_getmsgint(buf, 1);
	int			len;

	if (version != WIRE_VERSION)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_BINARY_REPRESENTATION),
				 errmsg("unsupported contact version number %d", version)));
	PG_RETURN_CONTACT_P(contact_from_text(pq_getmsgtext(buf, buf->len - buf->cursor, &len), NULL));
}

/*
 * contact_send(contact) -> bytea
 */
Datum
contact_send(PG_FUNCTION_ARGS)
{
	StringInfoData buf;
	int			len;
	char	   *text = contact_text(PG_GETARG_CONTACT_P(0), true, &len);

	pq_begintypsend(&buf);
	pq_sendint8(&buf, WIRE_VERSION);
	pq_sendtext(&buf, text, len);
	PG_RETURN_BYTEA_P(pq_endtypsend(&buf));
}

/*
 * contact -> jsonb: the canonical fields, without provenance
 */
Datum
contact_to_jsonb(PG_FUNCTION_ARGS)
{
	char	   *text = contact_text(PG_GETARG_CONTACT_P(0), false, NULL);

	return DirectFunctionCall1(jsonb_in, CStringGetDatum(text));
}

/*
 * jsonb -> contact
 */
Datum
contact_of_jsonb(PG_FUNCTION_ARGS)
{
	Contact    *c = contact_from_jsonb(PG_GETARG_JSONB_P(0), fcinfo->context);

	if (c == NULL)
		PG_RETURN_NULL();
	PG_RETURN_CONTACT_P(c);
}
