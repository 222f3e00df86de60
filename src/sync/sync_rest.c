/*
 * sync_rest.c
 *		Lists of JSON over HTTP, as a connector describes them.
 *
 * A full run reads the step "list"; an incremental one the steps "changes", or
 * "list" again, from a token that the provider gave or from a time.  By time, it
 * asks for what changed since the greatest version that an earlier run saw, less
 * an overlap: stamps of a provider need not become visible in their order, and
 * what comes twice changes nothing.  That version counts no further than to when
 * the run began, by the provider's clock: what changes while a run reads may have
 * been passed already.
 *
 * Where the connector has partitions, a run lists them first, with what each
 * holds within it, and then takes the steps for one after the other: see
 * sync_parts.c.
 *
 * The cursor says of which description it is the cursor: another choice of fields
 * or another filter needs a full read.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/md5.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "guc.h"
#include "sync/sync.h"
#include "sync/sync_parts.h"

typedef struct RestState
{
	SyncSpec	spec;
	int			nsteps;			/* of this run */
	SyncStep   *steps;
	int			step;
	SyncParts	parts;
	bool		listing_parts;	/* is under way: of what lies within the part ... */
	int			part;			/* ... or of the part that is read; -1 = of the source */
	char	   *digest;			/* of the description */
	char	   *since;			/* where the run starts; NULL = from nothing */
	char	   *token;			/* or from this */
	char	   *after;			/* position of the page: what the paging style makes of it */
	int64		received;		/* items of this step so far */
	int64		received_before;	/* without those of the page at hand */
	char	   *began;			/* by the provider's clock; NULL = not known */
	char	   *newest;			/* greatest version seen ... */
	char	   *covered;		/* ... or, where the provider says so, up to when all was shown */
	char	   *next_token;		/* the next run's token */
	/* items of a page that are not whole: they are fetched before it goes on */
	List	   *fetch;			/* of char * */
	char	   *fetch_then;		/* position after them; NULL = the step's end */
	/* a position that comes again is a loop: one is kept, at ever longer distances */
	char	   *mark;
	int			steps_since_mark;
	int			distance;
} RestState;

static SyncStep *
current(RestState *state)
{
	return state->listing_parts ? &state->spec.partitions : &state->steps[state->step];
}

static SyncPart *
current_part(RestState *state)
{
	return state->part >= 0 && state->part < state->parts.n ? &state->parts.parts[state->part] : NULL;
}

/* ---- requests ---- */

static TimestampTz
run_began(SyncRun *run)
{
	RestState  *state = run->state;

	return state->began ? sync_parse_time(state->began) : run->stamp;
}

static SyncVars
variables(SyncRun *run)
{
	RestState  *state = run->state;
	SyncStep   *step = current(state);
	SyncPart   *part = current_part(state);
	SyncVars	vars = {0};

	vars.now = sync_time_text(run_began(run), step->since_format);
	vars.after = state->after;
	vars.token = state->token;
	vars.partition = part ? part->id : NULL;
	if (state->since && !state->listing_parts && (part == NULL || part->known))
	{
		Interval   *span = DatumGetIntervalP(DirectFunctionCall3(interval_in, CStringGetDatum(step->since_overlap),
																 ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
		TimestampTz from = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_mi_interval,
																   TimestampTzGetDatum(sync_parse_time(state->since)),
																   IntervalPGetDatum(span)));

		vars.since = sync_time_text(from, step->since_format);
	}
	sync_parameters(run, &vars);
	return vars;
}

static char *
add_query(char *url, JsonbContainer *query, const SyncVars *vars)
{
	JsonbIterator *it;
	JsonbValue	v;
	char	   *name;
	char	   *value;

	if (query == NULL)
		return url;
	it = JsonbIteratorInit(query);
	(void) JsonbIteratorNext(&it, &v, true);
	while (sync_next_member(&it, vars, &name, &value))
		if (value)
			url = http_url_add(url, name, value);
	return url;
}

static void
set_headers(SyncRun *run, SyncStep *step, const SyncVars *vars, bool has_body)
{
	JsonbIterator *it;
	JsonbValue	v;
	char	   *name;
	char	   *value;

	run->nheaders = 0;
	sync_add_header(run, "Accept: application/json");
	if (has_body)
		sync_add_header(run, "Content-Type: application/json");
	if (step->headers == NULL)
		return;
	it = JsonbIteratorInit(step->headers);
	(void) JsonbIteratorNext(&it, &v, true);
	while (sync_next_member(&it, vars, &name, &value))
		if (value)
			sync_add_header(run, psprintf("%s: %s", name, value));
}

/* The URL of a path of the source's; throws where a parameter has no value. */
static char *
source_url(SyncRun *run, const char *template, const SyncVars *vars)
{
	char	   *path = sync_expand(template, vars, true);

	if (path == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a parameter in the connector's path has no value"),
				 errhint("Set it in the source's setting \"parameters\".")));
	return psprintf("%s%s%s", run->url, path[0] == '/' ? "" : "/", path);
}

/* Set the request of the next page. */
static void
ask(SyncRun *run)
{
	RestState  *state = run->state;
	SyncStep   *step = current(state);
	SyncVars	vars = variables(run);
	const char *path = state->listing_parts && state->part >= 0 ? state->spec.nested : step->path;
	char	   *url;
	char	   *body;

	/* a URL that the provider gave has all in it */
	if (state->after && (step->paging == SYNC_PAGE_URL || step->paging == SYNC_PAGE_LINK))
		url = state->after;
	else if (state->after == NULL && state->token && step->token_is_url)
		url = state->token;
	else
	{
		if (vars.after == NULL)
			vars.after = step->page_start;
		url = add_query(source_url(run, path, &vars), step->query, &vars);
		if (step->since_param && vars.since)
			url = http_url_add(url, step->since_param, vars.since);
		if (step->page_param && vars.after)
			url = http_url_add(url, step->page_param, vars.after);
	}
	body = step->body ? sync_expand_json(step->body, &vars) : NULL;
	run->method = step->method;
	set_headers(run, step, &vars, body != NULL);
	sync_keep(run, &run->body, body);
	sync_keep(run, &run->request, url);
}

static void
ask_for_item(SyncRun *run)
{
	RestState  *state = run->state;
	SyncStep   *step = current(state);
	SyncVars	vars = variables(run);

	vars.id = linitial(state->fetch);
	run->method = "GET";
	set_headers(run, step, &vars, false);
	sync_keep(run, &run->body, NULL);
	sync_keep(run, &run->request, add_query(source_url(run, step->fetch_path, &vars), step->fetch_query, &vars));
}

/* Set the request of a step that has no pages. */
void
sync_rest_ask(SyncRun *session, SyncStep *step, const SyncVars *vars)
{
	char	   *body = step->body ? sync_expand_json(step->body, vars) : NULL;

	session->method = step->method;
	set_headers(session, step, vars, body != NULL);
	sync_keep(session, &session->body, body);
	sync_keep(session, &session->request, add_query(source_url(session, step->path, vars), step->query, vars));
}

/* ---- from page to page ---- */

static void move_on(SyncRun *run, const char *after);

/* From the first page of a step, or of a list of partitions. */
static void
start_pages(RestState *state, SyncRun *run)
{
	sync_keep(run, &state->after, NULL);
	sync_keep(run, &state->mark, NULL);
	state->steps_since_mark = state->distance = 0;
	state->received = 0;
}

/* Which steps are taken: those for what changed, where it is known since when. */
static void
choose_steps(SyncRun *run)
{
	RestState  *state = run->state;
	SyncPart   *part = current_part(state);

	state->steps = &state->spec.list;
	state->nsteps = 1;
	if (run->cursor && state->spec.nchanges > 0 && (part == NULL || part->known))
	{
		state->steps = state->spec.changes;
		state->nsteps = state->spec.nchanges;
	}
	if (part)
		state->token = part->token;
}

static void
next_step(SyncRun *run)
{
	RestState  *state = run->state;

	start_pages(state, run);
	if (++state->step >= state->nsteps && state->part + 1 < state->parts.n)
	{
		state->step = 0;
		state->part++;
		choose_steps(run);
	}
	if (state->step < state->nsteps)
		ask(run);
	else
		sync_keep(run, &run->request, NULL);
}

/* ---- partitions ---- */

/* All are known: read the first.  False if the cursor is that of one that is gone. */
static bool
read_parts(SyncRun *run)
{
	RestState  *state = run->state;

	if (!sync_parts_from_cursor(run, &state->parts, run->cursor))
		return false;
	state->listing_parts = false;
	state->part = state->parts.n > 0 ? 0 : -1;
	state->step = 0;
	start_pages(state, run);
	choose_steps(run);
	if (state->parts.n > 0)
		ask(run);
	else
		sync_keep(run, &run->request, NULL);
	return true;
}

/* A page of the list is done: its next one, or what lies within the next partition.  False as of read_parts(). */
static bool
next_parts(SyncRun *run, char *after)
{
	RestState  *state = run->state;

	if (after)
	{
		move_on(run, after);
		return true;
	}
	if (state->spec.nested == NULL || state->part + 1 >= state->parts.n)
		return read_parts(run);
	state->part++;
	start_pages(state, run);
	ask(run);
	return true;
}

static void
take_parts(SyncRun *run, JsonbContainer *items)
{
	RestState  *state = run->state;

	for (int i = 0; items && i < JsonContainerSize(items); i++)
	{
		JsonbValue	v;
		char	   *id;

		if (!sync_find(state->spec.partition_id, JsonbValueToJsonb(getIthJsonbValueFromContainer(items, i)), &v) ||
			(id = sync_scalar_text(&v)) == NULL || id[0] == '\0')
			sync_bad_answer("has a partition without an id");
		(void) sync_part_add(run, &state->parts, id);
	}
	state->received += items ? JsonContainerSize(items) : 0;
}

/* Find out which there are; false as of read_parts(). */
static bool
list_parts(SyncRun *run)
{
	RestState  *state = run->state;
	SyncVars	vars = {0};
	char	   *only;

	sync_parameters(run, &vars);
	only = state->spec.only ? sync_expand(state->spec.only, &vars, false) : NULL;
	if (only)
	{
		(void) sync_part_add(run, &state->parts, only);
		return read_parts(run);
	}
	for (int i = 0; state->spec.fixed && i < JsonContainerSize(state->spec.fixed); i++)
		(void) sync_part_add(run, &state->parts, sync_scalar_text(getIthJsonbValueFromContainer(state->spec.fixed, i)));
	state->listing_parts = true;
	state->part = -1;
	ask(run);
	return true;
}

static void
move_on(SyncRun *run, const char *after)
{
	RestState  *state = run->state;

	if (after == NULL)
	{
		next_step(run);
		return;
	}
	if (state->mark && strcmp(after, state->mark) == 0)
		sync_bad_answer("repeats the position of an earlier page");
	if (++state->steps_since_mark >= state->distance)
	{
		sync_keep(run, &state->mark, after);
		state->distance = Max(1, state->distance * 2);
		state->steps_since_mark = 0;
	}
	sync_keep(run, &state->after, after);
	ask(run);
}

/* The greatest key of a page, which has to grow from item to item, or items would be lost. */
static char *
last_key(RestState *state, const SyncStep *step, JsonbContainer *items)
{
	char	   *last = state->after ? state->after : step->page_start;

	for (int i = 0; i < JsonContainerSize(items); i++)
	{
		JsonbValue	v;
		char	   *key;

		if (!sync_find(step->page_key, JsonbValueToJsonb(getIthJsonbValueFromContainer(items, i)), &v) ||
			(key = sync_scalar_text(&v)) == NULL || key[0] == '\0')
			sync_bad_answer("has an item without a key to go on from");
		/* numbers, mostly: a longer one is a greater one */
		if (last && (strspn(key, "0123456789") == strlen(key) && strspn(last, "0123456789") == strlen(last) ?
					 (strlen(key) != strlen(last) ? strlen(key) < strlen(last) : strcmp(key, last) <= 0) :
					 strcmp(key, last) <= 0))
			sync_bad_answer("is not in the order of the keys that was asked for");
		last = key;
	}
	return last;
}

/* Does an answer say how many items there are, and have as many come? */
static bool
all_received(RestState *state, const SyncStep *step, Jsonb *json, bool *said)
{
	JsonbValue	v;

	*said = sync_find(step->total, json, &v) && v.type == jbvNumeric;
	return *said && DatumGetInt64(DirectFunctionCall1(numeric_int8, NumericGetDatum(v.val.numeric))) <= state->received;
}

/* Where the next page is; NULL = this was the last. */
static char *
next_position(SyncRun *run, const SyncStep *step, Jsonb *json, JsonbContainer *items, HttpExchange *x)
{
	RestState  *state = run->state;
	int			n = items ? JsonContainerSize(items) : 0;
	JsonbValue	v;
	char	   *next = NULL;
	bool		said;

	switch (step->paging)
	{
		case SYNC_PAGE_NONE:
			return NULL;
		case SYNC_PAGE_OFFSET:
			if (n > 0 && !all_received(state, step, json, &said))
				next = psprintf(INT64_FORMAT, state->received + (step->page_start ? pg_strtoint64(step->page_start) : 0));
			return next;
		case SYNC_PAGE_KEYSET:
			return n > 0 ? last_key(state, step, items) : NULL;
		case SYNC_PAGE_LINK:
			/* a link that is not seen would end the list too early */
			if (x->link_cut)
				sync_bad_answer("has a header Link that is too long");
			next = http_next_link(x->link);
			return next ? sync_follow(run, next) : NULL;
		case SYNC_PAGE_CURSOR:
		case SYNC_PAGE_URL:
			if (sync_find(step->page_next, json, &v))
				next = sync_scalar_text(&v);
			if (next == NULL || next[0] == '\0')
				return NULL;
			return step->paging == SYNC_PAGE_URL ? sync_follow(run, next) : next;
	}
	return NULL;
}

/*
 * May an answer leave its list of items out?  Where something else proves that the
 * list is complete, some do if it is empty.
 */
static bool
items_optional(RestState *state, const SyncStep *step, Jsonb *json)
{
	JsonbValue	next;
	bool		said;

	if (step->end && (sync_page_ends(step, json) || sync_find(step->page_next, json, &next)))
		return true;
	return all_received(state, step, json, &said);
}

/* What the last page of a step has to prove. */
static void
check_end(RestState *state, const SyncStep *step, Jsonb *json)
{
	bool		said;

	if (step->end && !sync_page_ends(step, json))
		sync_bad_answer("ends the list without what proves that it is complete");
	if (!all_received(state, step, json, &said) && said)
		sync_bad_answer("ends the list with fewer items than it announces");
}

/* Remember what the next run starts from; false if this one's start is no longer covered. */
static bool
note_cursor(SyncRun *run, const SyncStep *step, Jsonb *json, TimestampTz newest)
{
	RestState  *state = run->state;
	SyncPart   *part = current_part(state);
	JsonbValue	v;
	TimestampTz time;
	char	   *token;

	/* neither must a stamp from the future make the next run miss what comes before it */
	newest = Min(newest, run_began(run));
	if (!TIMESTAMP_NOT_FINITE(newest))
		sync_keep(run, &state->newest, sync_time_text(newest, SYNC_TIME_ISO));
	if (sync_find(step->covered, json, &v) && sync_read_time(&v, &time))
	{
		time = Min(time, run_began(run));
		if (state->covered == NULL || time < sync_parse_time(state->covered))
			sync_keep(run, &state->covered, sync_time_text(time, SYNC_TIME_ISO));
	}
	if (sync_find(step->token_next, json, &v) && (token = sync_scalar_text(&v)) != NULL && token[0])
		sync_keep(run, part ? &part->next_token : &state->next_token, step->token_is_url ? sync_follow(run, token) : token);
	return !(state->since && sync_find(step->available_from, json, &v) && sync_read_time(&v, &time) &&
			 time > sync_parse_time(state->since));
}

/* ---- the driver ---- */

/* A digest of what is read, so that a cursor is not used for anything else. */
static char *
description_digest(SyncRun *run)
{
	static const char *const members[] = {"list", "changes", "partitions"};
	SyncVars	vars = {0};
	StringInfoData text;
	char	   *result = palloc0(33);
	const char *error = NULL;

	sync_parameters(run, &vars);
	initStringInfo(&text);
	appendStringInfoString(&text, run->url);
	/* as texts: jsonb has one form */
	for (int i = 0; i < lengthof(members); i++)
	{
		JsonbValue *v = getKeyJsonValueFromContainer(&run->spec->root, members[i], strlen(members[i]), NULL);

		if (v)
			(void) JsonbToCString(&text, v->val.binary.data, 0);
	}
	if (vars.parameters)
		(void) JsonbToCString(&text, &vars.parameters->root, 0);
	if (vars.own_parameters)
		(void) JsonbToCString(&text, &vars.own_parameters->root, 0);
	if (!pg_md5_hash(text.data, text.len, result, &error))
		ereport(ERROR, (errcode(ERRCODE_INTERNAL_ERROR), errmsg("could not compute a digest: %s", error ? error : "")));
	return result;
}

static bool
rest_begin(SyncRun *run)
{
	RestState  *state = palloc0(sizeof(RestState));
	char	   *of = sync_member(run->cursor, "of");
	char	   *number;

	run->state = state;
	state->part = -1;
	sync_read_spec(run->spec, &state->spec);
	state->digest = description_digest(run);
	state->since = sync_member(run->cursor, "since");
	state->token = sync_member(run->cursor, "token");
	if (run->cursor && ((of && strcmp(of, state->digest) != 0) ||
						(state->spec.partitioned && !sync_parts_in_cursor(run->cursor)) ||
						(!state->spec.changes_by_token ? state->since == NULL : !state->spec.partitioned && state->token == NULL)))
		return false;
	sync_keep(run, &state->newest, state->since);
	if (state->spec.partitioned)
	{
		/* of an interrupted run what it had found stands; if it was still looking, it looks again */
		if (!sync_parts_from_progress(run, &state->parts, run->progress))
			return list_parts(run);
		if (!sync_parts_from_cursor(run, &state->parts, run->cursor))
			return false;
		number = sync_member(run->progress, "part");
		state->part = number ? Min(pg_strtoint32(number), state->parts.n - 1) : -1;
	}
	choose_steps(run);
	number = sync_member(run->progress, "step");
	state->step = number ? Min(pg_strtoint32(number), state->nsteps - 1) : 0;
	number = sync_member(run->progress, "received");
	state->received = number ? pg_strtoint64(number) : 0;
	state->after = sync_member(run->progress, "after");
	state->newest = sync_member(run->progress, "newest");
	state->covered = sync_member(run->progress, "covered");
	state->began = sync_member(run->progress, "began");
	state->next_token = sync_member(run->progress, "token");
	if (state->newest == NULL)
		sync_keep(run, &state->newest, state->since);
	ask(run);
	return true;
}

static SyncClass
rest_classify(SyncRun *run, HttpExchange *x)
{
	RestState  *state = run->state;

	if (x->fault == HTTP_ANSWERED && sync_answer_listed(run->spec, "limits", x->status, x->body, x->len))
		return SYNC_RATE;
	if (run->cursor && x->fault == HTTP_ANSWERED && state->fetch == NIL &&
		sync_answer_listed(run->spec, "lost", x->status, x->body, x->len))
		return SYNC_LOST;
	return sync_classify(x);
}

static Jsonb *
read_json(HttpExchange *x)
{
	Jsonb	   *json;

	/* 'application/json', 'application/problem+json; charset=...' */
	if (strstr(x->content_type, "json") == NULL)
		sync_bad_answer("is not JSON");
	json = sync_parse_json(x->body, x->len);
	if (json == NULL)
		sync_bad_answer("is not UTF-8");
	return json;
}

/* An item that was not whole has come; or it is gone meanwhile. */
static void
take_fetched(SyncRun *run, HttpExchange *x, SyncPage *page)
{
	RestState  *state = run->state;
	TimestampTz newest = state->newest ? sync_parse_time(state->newest) : DT_NOBEGIN;
	char	   *id = linitial(state->fetch);
	char	   *then;

	if (x->status == 404 || x->status == 410)
		sync_add_row(page, id, "gone");
	else
	{
		sync_check_status(x, 200);
		sync_add_item(current(state), read_json(x), page, &newest);
	}
	state->fetch = list_delete_first(state->fetch);
	if (state->fetch != NIL)
	{
		ask_for_item(run);
		return;
	}
	then = state->fetch_then;
	state->fetch_then = NULL;
	move_on(run, then);
}

static void
take_items(SyncRun *run, const SyncStep *step, JsonbContainer *items, SyncPage *page, TimestampTz *newest)
{
	RestState  *state = run->state;
	int			n = items ? JsonContainerSize(items) : 0;

	for (int i = 0; i < n; i++)
	{
		Jsonb	   *item = JsonbValueToJsonb(getIthJsonbValueFromContainer(items, i));
		JsonbValue	v;

		if (sync_item_is_whole(step, item) || !sync_find(step->item.id, item, &v))
			sync_add_item(step, item, page, newest);
		else
		{
			MemoryContext old = MemoryContextSwitchTo(run->context);

			state->fetch = lappend(state->fetch, sync_scalar_text(&v));
			MemoryContextSwitchTo(old);
		}
	}
	state->received_before = state->received;
	state->received += n;
}

static bool
rest_read(SyncRun *run, HttpExchange *x, SyncPage *page)
{
	RestState  *state = run->state;
	SyncStep   *step = current(state);
	TimestampTz newest = state->newest ? sync_parse_time(state->newest) : DT_NOBEGIN;
	JsonbContainer *items;
	Jsonb	   *json;
	char	   *next;

	sync_check_answered(x);
	if (state->began == NULL && x->date > 0)
		sync_keep(run, &state->began, sync_time_text(time_t_to_timestamptz(x->date), SYNC_TIME_ISO));
	if (!state->listing_parts && current_part(state))
		page->part = pstrdup(current_part(state)->id);
	if (state->fetch != NIL)
	{
		take_fetched(run, x, page);
		return true;
	}
	sync_check_status(x, 200);
	json = read_json(x);
	if (state->listing_parts)
	{
		items = sync_page_items(step, json, false);
		take_parts(run, items);
		next = next_position(run, step, json, items, x);
		if (next == NULL)
			check_end(state, step, json);
		return next_parts(run, next);
	}
	items = sync_page_items(step, json, items_optional(state, step, json));
	take_items(run, step, items, page, &newest);
	/* the time of a tombstone says nothing of how far the changes were shown */
	if (!note_cursor(run, step, json, step->only_known && state->newest ? sync_parse_time(state->newest) : newest))
		return false;
	next = next_position(run, step, json, items, x);
	if (next == NULL)
		check_end(state, step, json);
	if (state->fetch != NIL)
	{
		sync_keep(run, &state->fetch_then, next);
		ask_for_item(run);
	}
	else
		move_on(run, next);
	return true;
}

/* While items are fetched, their page is where a run would go on. */
static Datum
rest_progress(SyncRun *run)
{
	RestState  *state = run->state;
	const char *names[] = {"step", "part", "after", "received", "newest", "covered", "token", "began"};
	const char *values[] = {psprintf("%d", state->step), state->parts.n > 0 ? psprintf("%d", state->part) : NULL, state->after,
		psprintf(INT64_FORMAT, state->fetch != NIL ? state->received_before : state->received),
	state->newest, state->covered, state->next_token, state->began};
	Datum		result;

	if (state->listing_parts)
		return sync_object(1, (const char *const[]) {"began"}, (const char *const[]) {state->began});
	result = sync_object(lengthof(names), names, values);
	return state->spec.partitioned ? sync_parts_to_progress(&state->parts, result) : result;
}

static bool
covers_time(const SyncSpec *spec)
{
	for (int i = 0; i < spec->nchanges; i++)
		if (spec->changes[i].covered)
			return true;
	return spec->list.covered != NULL;
}

static Datum
rest_cursor(SyncRun *run)
{
	RestState  *state = run->state;
	const char *names[] = {"since", "token", "of"};
	const char *values[] = {NULL, NULL, state->digest};

	if (state->spec.partitioned && state->spec.changes_by_token)
		return sync_parts_to_cursor(&state->parts, true, sync_object(lengthof(names), names, values));
	if (state->spec.changes_by_token)
		values[1] = state->next_token;
	else if (state->spec.changes_by_since)
		/* where time alone moves the cursor on, a full read does too */
		values[0] = state->covered ? state->covered :
			run->cursor == NULL && state->began && covers_time(&state->spec) ? state->began : state->newest;
	/* nothing to start from: the next run reads everything, too */
	if (values[0] == NULL && values[1] == NULL)
		return (Datum) 0;
	return state->spec.partitioned ? sync_parts_to_cursor(&state->parts, false, sync_object(lengthof(names), names, values)) :
		sync_object(lengthof(names), names, values);
}

const SyncDriver sync_rest = {"rest", rest_begin, rest_classify, rest_read, rest_progress, rest_cursor};
