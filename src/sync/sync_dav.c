/*
 * sync_dav.c
 *		CardDAV (RFC 6352) with sync-collection (RFC 6578).
 *
 *	find	 PROPFIND, from the source's URL to an address book: the URL itself or,
 *			 where that is a server and no more, /.well-known/carddav; the home set
 *			 of its principal, or what lies below it
 *	list	 REPORT sync-collection with the last token, or none; where a server
 *			 does not know that, PROPFIND of all members
 *	fetch	 REPORT addressbook-multiget, for cards whose ETag is new to us
 *
 * A full run lists with no token and so sees every member, whether its ETag is
 * known or not: that is what its certificate rests on.  A token that the server
 * no longer knows makes an incremental run a full one.
 *
 * A card's version is the stamp of its run; REV only tells when it was last
 * modified.  It is named by its path below the address book, decoded, since
 * servers differ in what they encode.  An interrupted run lists anew: what it
 * had fetched is known by its ETag.
 */
#include "postgres.h"

#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "common/string.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"
#include "utils/xml.h"

#include "compat.h"
#include "sync/sync.h"

#define CARDS_AT_A_TIME		100
#define MAX_HOPS			8		/* from the URL to the address book */
#define NAMESPACES			"xmlns=\"DAV:\" xmlns:C=\"urn:ietf:params:xml:ns:carddav\""

typedef enum DavPhase
{
	DAV_FIND,					/* asks about one resource */
	DAV_FIND_BELOW,				/* asks about those below it */
	DAV_LIST,
	DAV_LIST_MEMBERS,			/* without sync-collection */
	DAV_FETCH
} DavPhase;

/* A card to be fetched. */
typedef struct DavItem
{
	char	   *id;
	char	   *href;			/* as the server spells it */
	char	   *etag;
	bool		answered;
} DavItem;

typedef struct DavState
{
	DavPhase	phase;
	int			hops;
	bool		well_known;		/* on the way to where the server says that its address books begin */
	char	   *elsewhere;		/* host that this led to, where credentials must not go */
	char	   *collection;		/* URL of the address book */
	char	   *token;			/* that the next list is asked with; NULL = none */
	char	   *next_token;		/* that the list at hand came with */
	bool		truncated;		/* the server holds more of the list */
	MemoryContext list;			/* holds the items */
	DavItem    *items;
	int			nitems;
	int			next;			/* first item that is not fetched */
	int			asked;			/* how many were asked for in this request */
} DavState;

/* ---- requests ---- */

static void
request(SyncRun *run, const char *method, const char *url, const char *depth, const char *body)
{
	DavState   *state = run->state;

	if (++state->hops > MAX_HOPS && (state->phase == DAV_FIND || state->phase == DAV_FIND_BELOW))
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("no address book was found at the URL of the source")));
	run->method = method;
	sync_keep(run, &run->request, url);
	sync_keep(run, &run->body, body);
	run->headers[0] = "Content-Type: application/xml; charset=utf-8";
	run->headers[1] = depth;
	run->nheaders = 2;
}

static void
ask_find(SyncRun *run, const char *url, bool below)
{
	DavState   *state = run->state;

	state->phase = below ? DAV_FIND_BELOW : DAV_FIND;
	request(run, "PROPFIND", url, below ? "Depth: 1" : "Depth: 0",
			"<?xml version=\"1.0\" encoding=\"utf-8\"?>\n"
			"<propfind " NAMESPACES "><prop><resourcetype/><current-user-principal/>"
			"<C:addressbook-home-set/></prop></propfind>");
}

static void
ask_list(SyncRun *run)
{
	DavState   *state = run->state;
	char	   *token = escape_xml(state->token ? state->token : "");

	state->phase = DAV_LIST;
	request(run, "REPORT", state->collection, "Depth: 0",
			psprintf("<?xml version=\"1.0\" encoding=\"utf-8\"?>\n"
					 "<sync-collection " NAMESPACES "><sync-token>%s</sync-token><sync-level>1</sync-level>"
					 "<prop><getetag/></prop></sync-collection>", token));
}

static void
ask_members(SyncRun *run)
{
	DavState   *state = run->state;

	state->phase = DAV_LIST_MEMBERS;
	request(run, "PROPFIND", state->collection, "Depth: 1",
			"<?xml version=\"1.0\" encoding=\"utf-8\"?>\n"
			"<propfind " NAMESPACES "><prop><getetag/><resourcetype/></prop></propfind>");
}

/* Ask for the next cards, or end what the list brought. */
static void
ask_cards(SyncRun *run)
{
	DavState   *state = run->state;
	StringInfoData body;

	state->asked = Min(state->nitems - state->next, CARDS_AT_A_TIME);
	if (state->asked == 0)
	{
		sync_keep(run, &state->token, state->next_token);
		if (state->truncated)
			ask_list(run);
		else
			sync_keep(run, &run->request, NULL);
		return;
	}
	state->phase = DAV_FETCH;
	initStringInfo(&body);
	appendStringInfoString(&body, "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n"
						   "<C:addressbook-multiget " NAMESPACES "><prop><getetag/><C:address-data/></prop>");
	for (int i = 0; i < state->asked; i++)
		appendStringInfo(&body, "<href>%s</href>", escape_xml(state->items[state->next + i].href));
	appendStringInfoString(&body, "</C:addressbook-multiget>");
	request(run, "REPORT", state->collection, "Depth: 0", body.data);
}

/* ---- names ---- */

static char *
with_slash(const char *url)
{
	return url[0] && url[strlen(url) - 1] == '/' ? pstrdup(url) : psprintf("%s/", url);
}

/* UTF-8 in the database's encoding; NULL if that lacks a character of it. */
static char *
to_server(char *utf8)
{
	int			encoding = GetDatabaseEncoding();
	int			len = strlen(utf8);
	Oid			proc;
	unsigned char *converted;

	if (!pg_verify_mbstr(PG_UTF8, utf8, len, true))
		return NULL;
	if (encoding == PG_UTF8 || pg_is_ascii(utf8))
		return utf8;
	proc = FindDefaultConversionProc(PG_UTF8, encoding);
	if (!OidIsValid(proc) || encoding == PG_SQL_ASCII)
		return encoding == PG_SQL_ASCII ? utf8 : NULL;
	converted = MemoryContextAllocHuge(CurrentMemoryContext, (Size) len * MAX_CONVERSION_GROWTH + 1);
	if (pg_do_encoding_conversion_buf(proc, PG_UTF8, encoding, (unsigned char *) utf8, len,
									  converted, len * MAX_CONVERSION_GROWTH + 1, true) < len)
		return NULL;
	return (char *) converted;
}

/* The path of a URL: decoded, where that is text. */
static char *
decoded_path(const char *url)
{
	char	   *path = http_url_path(url, true);
	char	   *raw;

	if (path && (path = to_server(path)) != NULL)
		return path;
	raw = http_url_path(url, false);
	return raw ? raw : pstrdup("/");
}

/* What a card is called here; NULL for the address book itself. */
static char *
item_id(SyncRun *run, const char *href)
{
	DavState   *state = run->state;
	char	   *path = decoded_path(sync_follow(run, href));
	char	   *base = decoded_path(state->collection);
	size_t		n = strlen(base);

	if (strncmp(path, base, n) == 0 && path[n] != '\0')
		return path + n;
	/* some servers name it without its slash */
	if (strncmp(path, base, n) == 0 || (strlen(path) == n - 1 && strncmp(path, base, n - 1) == 0))
		return NULL;
	return path;
}

/* ---- answers ---- */

static void
parse(HttpExchange *x, DavDocument *doc)
{
	sync_check_status(x, 207);
	if (!sync_xml_parse(x->body, x->len, doc) || doc->responses == NULL)
		sync_bad_answer("is not a multistatus document");
}

static void
found(SyncRun *run, const char *url)
{
	DavState   *state = run->state;

	sync_keep(run, &state->collection, with_slash(url));
	ask_list(run);
}

/*
 * Where only the server is named, it is first asked where its address books begin
 * (RFC 6764).  If that leads to none, it is asked at its root: its web site may
 * live elsewhere, or show its sign-in page.
 */
static bool
find_elsewhere(SyncRun *run, HttpExchange *x)
{
	DavState   *state = run->state;

	if (x->status >= 301 && x->status <= 308 && x->location[0])
	{
		char	   *url = http_url_resolve(run->request, x->location);

		if (!state->well_known || (url && sync_trusts(run, url)))
		{
			ask_find(run, sync_follow(run, x->location), false);
			return true;
		}
		sync_keep(run, &state->elsewhere, url ? http_url_host(url) : NULL);
	}
	if (!state->well_known || x->status == 207)
		return false;
	state->well_known = false;
	ask_find(run, with_slash(run->url), false);
	return true;
}

static void
read_find(SyncRun *run, HttpExchange *x)
{
	DavState   *state = run->state;
	DavDocument doc;
	const DavResponse *r;

	if (find_elsewhere(run, x))
		return;
	if (state->elsewhere && x->status != 207)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("the address books of the source's server are on another one: %s", state->elsewhere),
				 errhint("Make that the URL of the source or, if its credentials may go there, name it in the setting \"trusted_hosts\".")));
	parse(x, &doc);
	if (doc.nresponses == 0)
		sync_bad_answer("says nothing of the resource");
	r = &doc.responses[0];
	if (r->is_addressbook)
		found(run, run->request);
	else if (r->home)
		ask_find(run, with_slash(sync_follow(run, r->home)), true);
	else if (r->principal && strcmp(decoded_path(sync_follow(run, r->principal)), decoded_path(run->request)) != 0)
		ask_find(run, sync_follow(run, r->principal), false);
	else
		ask_find(run, with_slash(run->request), true);
}

static void
read_find_below(SyncRun *run, HttpExchange *x)
{
	DavDocument doc;
	StringInfoData names;
	char	   *url = NULL;
	int			n = 0;

	parse(x, &doc);
	initStringInfo(&names);
	for (int i = 0; i < doc.nresponses; i++)
	{
		if (!doc.responses[i].is_addressbook)
			continue;
		url = sync_follow(run, doc.responses[i].href);
		if (n++ < 5)
			appendStringInfo(&names, "%s%s", n > 1 ? ", " : "", http_url_path(url, false));
	}
	if (n == 0)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("no address book was found at the URL of the source")));
	if (n > 1)
		ereport(ERROR,
				(errcode(ERRCODE_PROTOCOL_VIOLATION),
				 errmsg("there are %d address books at the URL of the source, make it that of one: %s", n, names.data)));
	found(run, url);
}

/* Which listed cards are to be fetched; the others have been seen, no more. */
static void
note_list(SyncRun *run, StoreArray *ids, StoreArray *etags, char **hrefs)
{
	DavState   *state = run->state;
	StoreArray	id;
	StoreArray	full;
	uint64		n;
	MemoryContext old;

	store_array_init(&id, INT8OID);
	store_array_add(&id, Int64GetDatum(run->id), false);
	store_array_init(&full, BOOLOID);
	store_array_add(&full, BoolGetDatum(run->full), false);
	n = store_run("SELECT l FROM contactsync._note_list(($1)[1], ($2)[1], $3, $4) l", 4,
				  (StoreArray *[]) {&id, &full, ids, etags});

	MemoryContextReset(state->list);
	old = MemoryContextSwitchTo(state->list);
	state->items = palloc_extended(sizeof(DavItem) * Max(n, 1), MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	for (uint64 i = 0; i < n; i++)
	{
		int64		at = store_int8(i, 1) - 1;
		DavItem    *item = &state->items[i];

		item->id = TextDatumGetCString(ids->values[at]);
		item->href = pstrdup(hrefs[at]);
		item->etag = etags->nulls[at] ? NULL : TextDatumGetCString(etags->values[at]);
	}
	MemoryContextSwitchTo(old);
	state->nitems = n;
	state->next = 0;
}

static void
read_list(SyncRun *run, HttpExchange *x, SyncPage *page)
{
	DavState   *state = run->state;
	DavDocument doc;
	StoreArray	ids;
	StoreArray	etags;
	char	  **hrefs;
	bool		truncated = false;

	parse(x, &doc);
	if (state->phase == DAV_LIST && doc.sync_token == NULL)
		sync_bad_answer("has no sync-token");
	store_array_init(&ids, TEXTOID);
	store_array_init(&etags, TEXTOID);
	hrefs = palloc_extended(sizeof(char *) * Max(doc.nresponses, 1), MCXT_ALLOC_HUGE);
	for (int i = 0; i < doc.nresponses; i++)
	{
		const DavResponse *r = &doc.responses[i];
		char	   *id = item_id(run, r->href);

		CHECK_FOR_INTERRUPTS();
		if (id == NULL)
		{
			truncated |= r->status == 507;
			continue;
		}
		if (r->status == 404)
			sync_add_row(page, id, "gone");
		else if (r->status != 0 && r->status != 200)
			sync_bad_answer(psprintf("has a member with status %d", r->status));
		else if (r->etag != NULL)
		{
			hrefs[ids.n] = r->href;
			store_array_add(&ids, CStringGetTextDatum(id), false);
			store_array_add(&etags, CStringGetTextDatum(r->etag), false);
		}
		/* else a collection, or something that is no file */
	}
	if (truncated && state->token && doc.sync_token && strcmp(state->token, doc.sync_token) == 0)
		sync_bad_answer("is cut short where the one before it was");
	state->truncated = truncated;
	sync_keep(run, &state->next_token, doc.sync_token);
	note_list(run, &ids, &etags, hrefs);
	ask_cards(run);
}

/* A card as the row of a page. */
static void
add_card(SyncPage *page, const DavItem *item, const DavResponse *r)
{
	int			at = page->ids.n;
	const StrView group = {"group", 5};
	JsonbValue	v;
	VcardReader reader;
	ContactValue value;
	const char *etag = r->etag ? r->etag : item->etag;

	contact_vcard_open(&reader, r->address_data, strlen(r->address_data));
	reader.text = true;
	if (contact_vcard_next(&reader, &value) && strview_cmp(reader.kind, group) == 0)
	{
		/* a list of people is no person */
		sync_add_row(page, item->id, "gone");
		return;
	}
	sync_add_row(page, item->id, "snapshot");
	if (etag)
	{
		page->etags.values[at] = CStringGetTextDatum(etag);
		page->etags.nulls[at] = false;
	}
	if (reader.rev != PG_INT64_MIN)
	{
		page->modified.values[at] = TimestampTzGetDatum(reader.rev);
		page->modified.nulls[at] = false;
	}
	v.type = jbvString;
	v.val.string.val = to_server(r->address_data);
	if (v.val.string.val == NULL)
	{
		page->faults.values[at] = CStringGetTextDatum("the card has characters that the database's encoding lacks");
		page->faults.nulls[at] = false;
		return;
	}
	v.val.string.len = strlen(v.val.string.val);
	page->payloads.values[at] = JsonbPGetDatum(JsonbValueToJsonb(&v));
	page->payloads.nulls[at] = false;
}

void
sync_dav_add_card(SyncPage *page, const char *id, char *card)
{
	const DavItem item = {.id = (char *) id};
	const DavResponse response = {.address_data = card};

	add_card(page, &item, &response);
}

static void
read_cards(SyncRun *run, HttpExchange *x, SyncPage *page)
{
	DavState   *state = run->state;
	DavItem    *items = &state->items[state->next];
	DavDocument doc;

	parse(x, &doc);
	for (int i = 0; i < doc.nresponses; i++)
	{
		const DavResponse *r = &doc.responses[i];
		char	   *id = item_id(run, r->href);
		DavItem    *item = NULL;

		for (int k = 0; id && k < state->asked && item == NULL; k++)
			if (!items[k].answered && strcmp(items[k].id, id) == 0)
				item = &items[k];
		if (item == NULL)
			continue;
		item->answered = true;
		if (r->address_data)
			add_card(page, item, r);
		/* deleted since it was listed: the next list says so */
		else if (r->status != 404 && r->prop_status != 404)
		{
			sync_add_row(page, id, "snapshot");
			page->faults.values[page->faults.n - 1] =
				CStringGetTextDatum(psprintf("the server does not give the card: status %d",
											 r->status ? r->status : r->prop_status));
			page->faults.nulls[page->faults.n - 1] = false;
		}
	}
	for (int k = 0; k < state->asked; k++)
		if (!items[k].answered)
			sync_bad_answer("leaves out cards that were asked for");
	state->next += state->asked;
	ask_cards(run);
}

/* The server does not know our token, or breaks down whenever it sees it. */
static bool
token_is_lost(SyncRun *run, HttpExchange *x)
{
	DavState   *state = run->state;
	DavDocument doc;

	if (state->token == NULL)
		return false;
	if (x->status == 403 || x->status == 409 || x->status == 410 || x->status == 412)
		return sync_xml_parse(x->body, x->len, &doc) && doc.error && strcmp(doc.error, "valid-sync-token") == 0;
	return x->status >= 500 && x->status != 503 && run->failures > 0;
}

/* The server does not know the report at all. */
static bool
report_is_unknown(SyncRun *run, HttpExchange *x)
{
	DavDocument doc;

	if (x->status == 400 || x->status == 405 || x->status == 415 || x->status == 501)
		return true;
	return x->status == 403 && sync_xml_parse(x->body, x->len, &doc) && doc.error &&
		strcmp(doc.error, "supported-report") == 0;
}

static bool
dav_read(SyncRun *run, HttpExchange *x, SyncPage *page)
{
	DavState   *state = run->state;

	sync_check_answered(x);
	switch (state->phase)
	{
		case DAV_FIND:
			read_find(run, x);
			break;
		case DAV_FIND_BELOW:
			read_find_below(run, x);
			break;
		case DAV_LIST:
			if (state->token == NULL && report_is_unknown(run, x))
				ask_members(run);
			else
				read_list(run, x, page);
			break;
		case DAV_LIST_MEMBERS:
			read_list(run, x, page);
			break;
		case DAV_FETCH:
			read_cards(run, x, page);
			break;
	}
	return true;
}

static bool
dav_begin(SyncRun *run)
{
	DavState   *state = palloc0(sizeof(DavState));
	Jsonb	   *from = run->progress ? run->progress : run->cursor;

	run->state = state;
	state->list = AllocSetContextCreate(run->context, "contactsync list", ALLOCSET_DEFAULT_SIZES);
	state->collection = sync_member(from, "collection");
	state->token = sync_member(from, "token");
	if (state->collection && sync_trusts(run, state->collection))
		ask_list(run);
	else if (strcmp(decoded_path(run->url), "/") == 0)
	{
		state->well_known = true;
		ask_find(run, psprintf("%s/.well-known/carddav", run->url), false);
	}
	else
		ask_find(run, with_slash(run->url), false);
	return true;
}

/* Only a list that is worked off moves it. */
static Datum
dav_progress(SyncRun *run)
{
	DavState   *state = run->state;
	const char *names[] = {"collection", "token"};
	const char *values[] = {state->collection, state->token};

	return sync_object(lengthof(names), names, values);
}

/* Without a token the next run reads everything, too. */
static Datum
dav_cursor(SyncRun *run)
{
	DavState   *state = run->state;

	return state->token ? dav_progress(run) : (Datum) 0;
}

static SyncClass
dav_classify(SyncRun *run, HttpExchange *x)
{
	DavState   *state = run->state;

	if (x->fault == HTTP_ANSWERED && state->phase == DAV_LIST && token_is_lost(run, x))
		return SYNC_LOST;
	/* a report that the server does not know is no fault */
	return x->status == 501 ? SYNC_FINE : sync_classify(x);
}

const SyncDriver sync_dav = {"carddav", dav_begin, dav_classify, dav_read, dav_progress, dav_cursor};
