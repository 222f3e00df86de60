/*
 * sync_single.c
 *		One record of a source at a time.
 *
 * A session is a SyncRun without a row in contactsync.runs: it knows where the
 * source is, how requests are authenticated and paced, and how the connector's
 * step "get" (or CardDAV) asks for one record.  Who has the session says for
 * which record the next request is, and reads its answer into a page.
 *
 * The answer is one of three: the record is here, with what it holds; it is gone;
 * or nothing is known.  Only what the provider itself says makes it gone: the page
 * of something in between, as a proxy's "404 Not Found", does not.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "common/string.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "sync/sync.h"

typedef struct SingleState
{
	SyncSpec	spec;			/* not of CardDAV */
	SyncVars	vars;
	char	   *collection;		/* of CardDAV: URL of the address book; NULL = not found yet */
	bool		is_dav;
} SingleState;

static bool
is_true(Jsonb *json, const char *name)
{
	JsonbValue *v = getKeyJsonValueFromContainer(&json->root, name, strlen(name), NULL);

	return v && v->type == jbvBool && v->val.boolean;
}

SyncRun *
sync_session_open(const char *tenant, const char *source, Jsonb *settings, Jsonb *spec, const char *collection)
{
	MemoryContext context = AllocSetContextCreate(CurrentMemoryContext, "contactsync session", ALLOCSET_SMALL_SIZES);
	MemoryContext old = MemoryContextSwitchTo(context);
	SyncRun    *session = palloc0(sizeof(SyncRun));
	SingleState *state = palloc0(sizeof(SingleState));
	char	   *driver;

	session->context = context;
	session->tenant = pstrdup(tenant);
	session->source = pstrdup(source);
	session->settings = DatumGetJsonbPCopy(JsonbPGetDatum(settings));
	session->spec = DatumGetJsonbPCopy(JsonbPGetDatum(spec));
	session->url = sync_member(settings, "url");
	session->header_context = AllocSetContextCreate(context, "contactsync headers", ALLOCSET_SMALL_SIZES);
	session->rate = getKeyJsonValueFromContainer(&settings->root, "rate", 4, NULL) ? sync_read_rate(session->settings, NULL) :
		sync_read_rate(session->spec, "limits");
	session->allow_http = is_true(settings, "allow_http");
	session->allow_private = is_true(settings, "allow_private");
	while (session->url[0] && session->url[strlen(session->url) - 1] == '/')
		session->url[strlen(session->url) - 1] = '\0';
	session->state = state;
	driver = sync_member(spec, "driver");
	state->is_dav = driver && strcmp(driver, "carddav") == 0;
	if (state->is_dav)
		/* where a redirected address book lies is for a run to find */
		state->collection = collection && sync_trusts(session, collection) ? pstrdup(collection) : NULL;
	else
	{
		sync_read_spec(session->spec, &state->spec);
		if (!state->spec.has_get)
			ereport(ERROR,
					(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
					 errmsg("the connector does not say how a single record is read")));
	}
	sync_parameters(session, &state->vars);
	sync_breaker_prepare(session);
	sync_auth_prepare(session);
	MemoryContextSwitchTo(old);
	/* nothing has thrown: now it may outlive the transaction */
	MemoryContextSetParent(context, TopMemoryContext);
	return session;
}

void
sync_session_close(SyncRun *session)
{
	sync_auth_free(session);
	MemoryContextDelete(session->context);
}

bool
sync_session_is_unversioned(SyncRun *session)
{
	SingleState *state = session->state;

	return state->is_dav || state->spec.get.item.version == NULL;
}

/* A record's name becomes a part of a path: it must not lead to another one. */
static void
check_id(const char *id)
{
	bool		dots = false;

	for (const char *p = id; p; p = strchr(p, '/'))
	{
		p += *p == '/';
		dots |= p[0] == '.' && (p[1] == '\0' || p[1] == '/' || (p[1] == '.' && (p[2] == '\0' || p[2] == '/')));
	}
	if (dots || (GetDatabaseEncoding() != PG_UTF8 && !pg_is_ascii(id)))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the record's id cannot be a part of a URL")));
}

void
sync_session_ask(SyncRun *session, const char *id)
{
	SingleState *state = session->state;

	check_id(id);
	state->vars.id = id;
	if (!state->is_dav)
	{
		sync_rest_ask(session, &state->spec.get, &state->vars);
		return;
	}
	if (state->collection == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("the source's address book is not known yet"),
				 errhint("A run finds it: see contactsync.sync().")));
	session->method = "GET";
	session->nheaders = 0;
	sync_add_header(session, "Accept: text/vcard");
	sync_keep(session, &session->body, NULL);
	/* below the address book, or by its whole path */
	sync_keep(session, &session->request,
			  http_url_resolve(state->collection, sync_expand("{id_path}", &state->vars, true)));
}

SyncClass
sync_session_classify(SyncRun *session, HttpExchange *x)
{
	if (x->fault == HTTP_ANSWERED && x->status != 200 && sync_answer_listed(session->spec, "limits", x->status, x->body, x->len))
		return SYNC_RATE;
	return sync_classify(x);
}

/* Is an item what was asked for: by its own id, or by one that it had before? */
static bool
is_about(const SyncStep *step, Jsonb *item, const char *id)
{
	JsonbValue	v;
	char	   *is;

	if (!sync_find(step->item.id, item, &v) || (is = sync_scalar_text(&v)) == NULL)
		return false;
	if (strcmp(is, id) == 0)
		return true;
	if (!sync_find(step->item.replaces, item, &v) || v.type != jbvBinary || !JsonContainerIsArray(v.val.binary.data))
		return false;
	for (int i = 0; i < JsonContainerSize(v.val.binary.data); i++)
		if ((is = sync_scalar_text(getIthJsonbValueFromContainer(v.val.binary.data, i))) != NULL && strcmp(is, id) == 0)
			return true;
	return false;
}

static SyncSingle
read_item(const SyncSpec *spec, const char *id, HttpExchange *x, SyncPage *page, const char **fault)
{
	const SyncStep *step = &spec->get;
	TimestampTz newest = DT_NOBEGIN;
	JsonbValue	v;
	Jsonb	   *json = strstr(x->content_type, "json") ? sync_parse_json(x->body, x->len) : NULL;

	*fault = "the provider's answer is not JSON";
	if (json == NULL)
		return SYNC_SINGLE_UNKNOWN;
	if (sync_find(spec->gone_path, json, &v))
		return SYNC_SINGLE_GONE;
	*fault = "the provider's answer is not about the record that was asked for";
	if (step->items)
	{
		if (!sync_find(step->items, json, &v))
			return SYNC_SINGLE_UNKNOWN;
		if (v.type == jbvBinary && JsonContainerIsArray(v.val.binary.data) &&
			(JsonContainerSize(v.val.binary.data) != 1 ||
			 (v = *getIthJsonbValueFromContainer(v.val.binary.data, 0)).type != jbvBinary))
			return SYNC_SINGLE_UNKNOWN;
		json = JsonbValueToJsonb(&v);
	}
	if (!JB_ROOT_IS_OBJECT(json) || !is_about(step, json, id))
		return SYNC_SINGLE_UNKNOWN;
	sync_add_item(step, json, page, &newest);
	return SYNC_SINGLE_HERE;
}

SyncSingle
sync_session_read(SyncRun *session, const char *id, HttpExchange *x, SyncPage *page, const char **fault)
{
	SingleState *state = session->state;

	*fault = NULL;
	if (x->status == 200 && !state->is_dav)
		return read_item(&state->spec, id, x, page, fault);
	if (x->status == 200)
	{
		if (strncmp(x->body, "BEGIN:VCARD", 11) == 0 && strlen(x->body) == x->len && pg_verify_mbstr(PG_UTF8, x->body, x->len, true))
		{
			sync_dav_add_card(page, id, x->body);
			return SYNC_SINGLE_HERE;
		}
		*fault = "the provider's answer is not a vCard";
		return SYNC_SINGLE_UNKNOWN;
	}
	if (state->is_dav ? x->status == 404 || x->status == 410 : sync_answer_gone(&state->spec, x))
		return SYNC_SINGLE_GONE;
	*fault = x->status >= 300 && x->status < 400 ? "the provider redirects, which is not followed" :
		x->status == 404 || x->status == 410 ? "it is not the provider that says that the record is gone" :
		"the provider's answer has another status than 200";
	return SYNC_SINGLE_UNKNOWN;
}
