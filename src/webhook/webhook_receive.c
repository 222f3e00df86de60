/*
 * webhook_receive.c
 *		The check of a webhook's signature as an SQL function.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "guc.h"
#include "stats/stats.h"
#include "store/guard.h"
#include "store/secret.h"
#include "webhook/webhook.h"

PG_FUNCTION_INFO_V1(webhook_verify_sql);
PG_FUNCTION_INFO_V1(webhook_is_scheme_sql);

/*
 * A header's value, whatever case its name is in; NULL where it is absent, no
 * text, or there twice: which of two did the sender sign?
 */
static char *
find_header(Jsonb *headers, const char *name)
{
	JsonbIterator *it;
	JsonbValue	v;
	JsonbIteratorToken token;
	char	   *result = NULL;
	int			found = 0;

	if (name == NULL || headers == NULL || !JB_ROOT_IS_OBJECT(headers))
		return NULL;
	it = JsonbIteratorInit(&headers->root);
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		bool		wanted;

		if (token != WJB_KEY)
			continue;
		wanted = v.val.string.len == strlen(name) &&
			pg_strncasecmp(v.val.string.val, name, v.val.string.len) == 0;
		(void) JsonbIteratorNext(&it, &v, true);
		if (!wanted)
			continue;
		found++;
		if (v.type == jbvString)
			result = pnstrdup(v.val.string.val, v.val.string.len);
	}
	return found == 1 ? result : NULL;
}

/* The check, and the id that the scheme's header gives (NULL = none). */
static WebhookVerdict
check_request(const WebhookScheme *scheme, Jsonb *headers, bytea *body,
			  char *const *secrets, int nsecrets, int64 now, int tolerance, char **id)
{
	WebhookRequest request = {0};

	request.id = *id = find_header(headers, scheme->id_header);
	request.timestamp = find_header(headers, scheme->timestamp_header);
	request.signature = find_header(headers, scheme->signature_header);
	if (body != NULL)
	{
		request.body = (const uint8 *) VARDATA_ANY(body);
		request.body_len = VARSIZE_ANY_EXHDR(body);
	}
	return webhook_verify(scheme, &request, secrets, nsecrets, now, tolerance);
}

/*
 * _verify_webhook(source text, scheme text, headers jsonb, body bytea,
 *				   OUT ok boolean, OUT event_id text, OUT reason text)
 *		Is the request signed with one of the source's secrets called webhook?
 */
Datum
webhook_verify_sql(PG_FUNCTION_ARGS)
{
	static const char *const reasons[] = {
		[WEBHOOK_OK] = NULL,
		[WEBHOOK_NO_SIGNATURE] = "no signature",
		[WEBHOOK_OUTSIDE_WINDOW] = "outside the window",
		[WEBHOOK_NO_SECRET] = "no secret",
		[WEBHOOK_BAD_SIGNATURE] = "bad signature",
	};
	static const StatsCounter counters[] = {
		[WEBHOOK_NO_SIGNATURE] = SC_WEBHOOKS_NO_SIGNATURE,
		[WEBHOOK_OUTSIDE_WINDOW] = SC_WEBHOOKS_OUTSIDE_WINDOW,
		[WEBHOOK_NO_SECRET] = SC_WEBHOOKS_NO_SECRET,
		[WEBHOOK_BAD_SIGNATURE] = SC_WEBHOOKS_BAD_SIGNATURE,
	};
	const WebhookScheme *scheme;
	WebhookVerdict verdict;
	TupleDesc	tupdesc;
	char	   *source;
	char	   *name;
	char	  **secrets;
	int			nsecrets;
	char	   *id;
	int64		now;
	Datum		values[3] = {0};
	bool		nulls[3] = {false, true, true};

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("source and scheme must not be null")));
	source = text_to_cstring(PG_GETARG_TEXT_PP(0));
	name = text_to_cstring(PG_GETARG_TEXT_PP(1));
	scheme = webhook_scheme(name);
	if (scheme == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("unknown webhook scheme \"%s\"", name)));
	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");

	/* rounded down, as the senders do */
	now = GetCurrentStatementStartTimestamp() / USECS_PER_SEC +
		(int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * SECS_PER_DAY;
	nsecrets = secret_get_all(source, "webhook", &secrets);
	verdict = check_request(scheme,
							PG_ARGISNULL(2) ? NULL : PG_GETARG_JSONB_P(2),
							PG_ARGISNULL(3) ? NULL : PG_GETARG_BYTEA_PP(3),
							secrets, nsecrets, now, guc_webhook_tolerance, &id);
	for (int i = 0; i < nsecrets; i++)
		explicit_bzero(secrets[i], strlen(secrets[i]));

	values[0] = BoolGetDatum(verdict == WEBHOOK_OK);
	if (verdict == WEBHOOK_OK && id != NULL && id[0] != '\0')
	{
		values[1] = CStringGetTextDatum(id);
		nulls[1] = false;
	}
	if (verdict != WEBHOOK_OK)
	{
		stats_add_now(guard_current_tenant(), source, counters[verdict], 1);
		values[2] = CStringGetTextDatum(reasons[verdict]);
		nulls[2] = false;
	}
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc), values, nulls)));
}

/*
 * _is_webhook_scheme(name text) -> boolean
 */
Datum
webhook_is_scheme_sql(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(webhook_scheme(text_to_cstring(PG_GETARG_TEXT_PP(0))) != NULL);
}
