/*
 * store_observe.c
 *		Inbox to observations to records.
 *
 * What cannot be read stays in the inbox with its reason.  An observation that
 * is stored already changes nothing.  One that comes in order is added to its
 * record's accumulator; for any other the record is folded anew from all that
 * is stored of it.
 */
#include "postgres.h"

#include "access/detoast.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/jsonb.h"
#include "utils/lsyscache.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "contactsync.h"
#include "guc.h"
#include "stats/stats.h"
#include "store/store.h"

typedef struct Event
{
	int64		inbox_id;
	StrView		source;
	StrView		source_id;
	StrView		kind;
	const StoreMapping *mapping;
	int			record;			/* index of its record */
	bool		stored;			/* was not known before */
	Datum		origins;		/* of a write of ours */
	Datum		changed;		/* since when fields have their values; 0 = not given */
	bool		late;			/* not newer than what was compacted */
	bool		more;			/* asserts a key that its record did not show then */
	int64		received;		/* its receipt, and what a clock might then run ahead */
	int64		tolerance;
	MergeObservation o;
	int64		sighted;		/* start of the run that showed it; MERGE_TIME_MIN = none */
	Contact    *claims;
	Datum		covers;			/* text[] */
	Datum		payload;		/* as it is stored, compressed or not */
	bool		has_payload;
	Datum		coverage;		/* as it was given */
	bool		has_coverage;
	int64		run;			/* 0 = none */
} Event;

static int64
interval_usecs(Datum interval)
{
	const Interval *i = DatumGetIntervalP(interval);

	return i->time + (i->day + (int64) i->month * DAYS_PER_MONTH) * USECS_PER_DAY;
}

static Datum
usecs_interval(int64 usecs)
{
	Interval   *i = palloc0(sizeof(Interval));

	i->time = usecs;
	return IntervalPGetDatum(i);
}

/* A stamp from further ahead than a clock may err counts as of its receipt. */
static int64
effective_stamp(int64 raw, int64 received, int64 tolerance)
{
	return raw > received + tolerance ? received : raw;
}

/* Of the receipts of one observation the first counts, and its tolerance. */
static bool
earlier_receipt(const Event *e, int64 received, int64 tolerance)
{
	return e->received != received ? e->received < received : e->tolerance < tolerance;
}

/* The payload of a merge at the source: {"into": "<id of the record that stays>"}. */
static bool
read_merge(Event *e, Datum payload, bool isnull, ContactError *error)
{
	JsonbValue	buf;
	JsonbValue *into = NULL;

	if (!isnull && JB_ROOT_IS_OBJECT(DatumGetJsonbP(payload)))
		into = getKeyJsonValueFromContainer(&DatumGetJsonbP(payload)->root, "into", 4, &buf);
	strcpy(error->path, "$.into");
	if (into == NULL || into->type != jbvString || into->val.string.len == 0)
		error->message = "expected the id of the record that the source merged this one into";
	else if (into->val.string.len == e->source_id.len && memcmp(into->val.string.val, e->source_id.ptr, e->source_id.len) == 0)
		error->message = "a record cannot be merged into itself";
	else
	{
		e->o.into.ptr = into->val.string.val;
		e->o.into.len = into->val.string.len;
		return true;
	}
	return false;
}

/* Read a row of the inbox; false, with the fault, if it cannot be applied. */
static bool
read_event(uint64 row, Event *e, const StoreMapping *mapping, MemoryContext scratch, ContactError *error)
{
	static const char *const kinds[] = {"snapshot", "patch", "delete", "undelete", "merge"};
	bool		isnull;

	memset(e, 0, sizeof(*e));
	memset(error, 0, sizeof(*error));
	e->inbox_id = store_int8(row, 1);
	e->source = store_text(row, 2);
	e->source_id = store_text(row, 3);
	e->kind = store_text(row, 4);
	e->mapping = mapping;
	for (int k = 0; k < lengthof(kinds); k++)
		if (e->kind.len == strlen(kinds[k]) && memcmp(e->kind.ptr, kinds[k], e->kind.len) == 0)
			e->o.kind = k < MK_UNDELETE + 1 ? k : MK_DELETE;
	e->o.raw = store_time(row, 5);
	e->o.seq = store_int8(row, 6);
	e->o.created = store_time(row, 7);
	e->sighted = store_time(row, 10);
	e->o.inferred = DatumGetBool(store_value(row, 11, &isnull));
	e->received = store_time(row, 12);
	e->o.modified = store_time(row, 13);
	e->tolerance = interval_usecs(store_value(row, 14, &isnull));
	e->o.effective = effective_stamp(e->o.raw, e->received, e->tolerance);

	e->run = store_int8(row, 15);

	e->payload = store_value(row, 9, &isnull);
	e->has_payload = !isnull;
	if (e->kind.len == 5 && memcmp(e->kind.ptr, "merge", 5) == 0 && !read_merge(e, e->payload, isnull, error))
		return false;
	if (isnull && (e->o.kind == MK_SNAPSHOT || e->o.kind == MK_PATCH))
	{
		error->message = "a payload is missing";
		strcpy(error->path, "$");
		return false;
	}
	e->origins = store_value(row, 16, &isnull);
	if (!isnull)
	{
		/* in our own form, since it is ours */
		static const StoreMapping canonical = {0};

		store_read_origins(e->origins, &e->o);
		mapping = &canonical;
	}
	e->changed = store_value(row, 18, &isnull);
	if (!isnull)
		store_read_changed(e->changed, &e->o);
	else
		e->changed = (Datum) 0;
	e->coverage = store_value(row, 8, &isnull);
	e->has_coverage = !isnull;
	return store_read_claims(&e->o, mapping, e->has_payload ? &e->payload : NULL, e->has_coverage ? &e->coverage : NULL,
							 scratch, &e->claims, &e->covers, error);
}

static int
event_key_cmp(const Event *a, const Event *b)
{
	int			r = strview_cmp(a->source, b->source);

	return r ? r : strview_cmp(a->source_id, b->source_id);
}

static int
event_ptr_cmp(const void *x, const void *y)
{
	const Event *a = *(Event *const *) x;
	const Event *b = *(Event *const *) y;
	int			r = event_key_cmp(a, b);

	if (r)
		return r;
	if ((r = merge_observation_cmp(&a->o, &b->o)) != 0)
		return r;
	return a->inbox_id < b->inbox_id ? -1 : a->inbox_id > b->inbox_id;
}

/* Give the records that are not stored yet their ids, in their order. */
static void
begin_records(StoreRecord *records, Event **events, int nevents)
{
	Oid			ids = get_relname_relid("records_id_seq", get_namespace_oid(CONTACTSYNC_SCHEMA, false));

	for (int i = 0; i < nevents; i++)
	{
		StoreRecord *r = &records[events[i]->record];

		if (r->id != 0)
			continue;
		r->id = nextval_internal(ids, false);
		r->source = events[i]->source;
		r->source_id = events[i]->source_id;
		merge_record_init(&r->m);
		r->horizon = r->was_reused = MERGE_TIME_MIN;
		r->fresh = r->relink = true;
	}
}

/* The records of events, which are sorted by record, with what is stored of them. */
static StoreRecord *
load_records(Event **events, int nevents, int *nrecords)
{
	StoreArray	sources;
	StoreArray	ids;
	StoreRecord *records;
	int			n = 0;

	store_array_init(&sources, TEXTOID);
	store_array_init(&ids, TEXTOID);
	for (int i = 0; i < nevents; i++)
	{
		if (i == 0 || event_key_cmp(events[i - 1], events[i]) != 0)
		{
			store_array_add_text(&sources, events[i]->source);
			store_array_add_text(&ids, events[i]->source_id);
			n++;
		}
		events[i]->record = n - 1;
	}
	records = palloc0(sizeof(StoreRecord) * Max(n, 1));
	store_records_by_name(&sources, &ids, records);
	begin_records(records, events, nevents);
	/* what is the source's is known from its mapping */
	for (int i = 0; i < nevents; i++)
	{
		records[events[i]->record].source_class = events[i]->mapping->source_class;
		records[events[i]->record].many_per_source = events[i]->mapping->many_per_source;
	}
	*nrecords = n;
	return records;
}

/* Read all of a record that something new is said of. */
static void
read_record(StoreRecord *r)
{
	if (r->fresh || r->whole)
		return;
	store_read_rest(r);
	r->was_uncovered = r->m.uncovered;
	r->whole = true;
}

static bool
same_observation(const Event *a, const Event *b)
{
	return event_key_cmp(a, b) == 0 && memcmp(a->o.digest, b->o.digest, MERGE_DIGEST_LEN) == 0;
}

static int
event_digest_cmp(const void *x, const void *y)
{
	const Event *a = *(Event *const *) x;
	const Event *b = *(Event *const *) y;
	int			r = event_key_cmp(a, b);

	return r ? r : memcmp(a->o.digest, b->o.digest, MERGE_DIGEST_LEN);
}

/* Give copies of an observation, which lie side by side, the first receipt of any. */
static void
join_receipts(Event **events, int nevents)
{
	for (int i = 0; i < nevents;)
	{
		const Event *first = events[i];
		int64		effective;
		int			end;

		for (end = i + 1; end < nevents && same_observation(events[i], events[end]); end++)
			if (earlier_receipt(events[end], first->received, first->tolerance))
				first = events[end];
		effective = first->o.effective;
		for (int64 received = first->received, tolerance = first->tolerance; i < end; i++)
		{
			events[i]->received = received;
			events[i]->tolerance = tolerance;
			events[i]->o.effective = effective;
		}
	}
}

/* By record and version; copies of an observation side by side, with one receipt. */
static void
sort_events(Event **events, int nevents)
{
	bool		clamped = false;

	for (int i = 0; i < nevents; i++)
		clamped |= events[i]->o.effective != events[i]->o.raw;
	/* copies that differ in what a stamp counts as are not of one version */
	if (clamped)
	{
		qsort(events, nevents, sizeof(Event *), event_digest_cmp);
		join_receipts(events, nevents);
	}
	qsort(events, nevents, sizeof(Event *), event_ptr_cmp);
	if (!clamped)
		join_receipts(events, nevents);
}

/*
 * Which of the events' observations are known?  Those are not stored again, but
 * may turn out to have been received earlier; where that changes the version, the
 * record is folded anew.
 */
static void
find_known(Event **events, int nevents, StoreRecord *records)
{
	static const char *const columns[] = {"received_at", "tolerance", "effective"};
	StoreArray	record;
	StoreArray	digest;
	int		   *index = palloc(sizeof(int) * nevents);
	StoreArray	moved_record;
	StoreArray	moved_digest;
	StoreArray	received;
	StoreArray	tolerance;
	StoreArray	effective;
	StoreFound *found;

	store_array_init(&record, INT8OID);
	store_array_init(&digest, BYTEAOID);
	store_array_init(&moved_record, INT8OID);
	store_array_init(&moved_digest, BYTEAOID);
	store_array_init(&received, TIMESTAMPTZOID);
	store_array_init(&tolerance, INTERVALOID);
	store_array_init(&effective, TIMESTAMPTZOID);
	for (int i = 0; i < nevents; i++)
	{
		const StoreRecord *r = &records[events[i]->record];

		events[i]->stored = i == 0 || !same_observation(events[i - 1], events[i]);
		if (!events[i]->stored || r->m.last.effective == MERGE_TIME_MIN)
			continue;
		index[record.n] = i;
		store_array_add(&record, Int64GetDatum(r->id), false);
		store_array_add(&digest, PointerGetDatum(cstring_to_text_with_len((char *) events[i]->o.digest, MERGE_DIGEST_LEN)), false);
	}
	if (record.n == 0)
		return;
	found = store_find("observations", "observations_pkey", columns, lengthof(columns), 2, (StoreArray *[]) {&record, &digest});
	for (int64 row = 0; row < found->n; row++)
	{
		Event	   *e = events[index[found->which[row]]];
		StoreRecord *r = &records[e->record];
		bool		isnull;

		store_found_row(found, row);
		e->stored = false;
		if (!earlier_receipt(e, store_found_time(found, 0), interval_usecs(store_found_value(found, 1, &isnull))))
			continue;
		/* nothing is moved to before what was compacted */
		if (r->horizon != MERGE_TIME_MIN && e->o.effective <= r->horizon)
			continue;
		store_array_add(&moved_record, Int64GetDatum(r->id), false);
		store_array_add(&moved_digest, PointerGetDatum(cstring_to_text_with_len((char *) e->o.digest, MERGE_DIGEST_LEN)), false);
		store_array_add_time(&received, e->received);
		store_array_add(&tolerance, usecs_interval(e->tolerance), false);
		store_array_add_time(&effective, e->o.effective);
		if (e->o.effective == store_found_time(found, 2))
			continue;
		r->changed = r->refold = r->restamped = true;
		r->cause_id = Max(r->cause_id, e->inbox_id);
	}
	if (moved_record.n > 0)
		store_run("UPDATE contactsync.observations o SET received_at = u.received_at, tolerance = u.tolerance, "
				  "effective = u.effective FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), "
				  "pg_catalog.unnest($3), pg_catalog.unnest($4), pg_catalog.unnest($5)) AS u (record_id, digest, received_at, tolerance, effective) "
				  "WHERE o.tenant_id = contactsync.current_tenant() AND o.record_id = u.record_id AND o.digest = u.digest",
				  5, (StoreArray *[]) {&moved_record, &moved_digest, &received, &tolerance, &effective});
}

/*
 * What was compacted is closed: an event that is not newer is known, if the base
 * stands for it, or late.  Say so once.
 */
static void
find_late(Event **events, int nevents, StoreRecord *records)
{
	StoreArray	ids;
	MergeBase **bases;
	int64	   *owners;
	uint64		n;
	unsigned long nlate = 0;

	store_array_init(&ids, INT8OID);
	for (int i = 0; i < nevents; i++)
	{
		const StoreRecord *r = &records[events[i]->record];

		events[i]->late = events[i]->stored && r->horizon != MERGE_TIME_MIN && events[i]->o.effective <= r->horizon;
		if (events[i]->late)
			store_array_add(&ids, Int64GetDatum(r->id), false);
	}
	if (ids.n == 0)
		return;
	n = store_run("SELECT o.record_id, o.base FROM " STORE_EACH_ROW(1, "observations", "record_id", "o")
				  "WHERE o.kind = 'base'", 1, (StoreArray *[]) {&ids});
	bases = palloc(sizeof(MergeBase *) * Max(n, 1));
	owners = palloc(sizeof(int64) * Max(n, 1));
	for (uint64 row = 0; row < n; row++)
	{
		owners[row] = store_int8(row, 1);
		bases[row] = store_read_base(store_text(row, 2));
	}
	for (int i = 0; i < nevents; i++)
	{
		for (uint64 k = 0; events[i]->late && k < n; k++)
			if (owners[k] == records[events[i]->record].id && store_base_knows(bases[k], events[i]->o.digest))
				events[i]->late = events[i]->stored = false;
		nlate += events[i]->late;
	}
	if (nlate > 0)
		ereport(NOTICE,
				(errmsg_plural("%lu observation came too late to be merged",
							   "%lu observations came too late to be merged", nlate, nlate),
				 errdetail("They are not newer than what their records were compacted to."),
				 errhint("See contactsync.late_observations.")));
}

/* Store the observations that are new, and mark their events. */
static void
store_observations(Event **events, int nevents, StoreRecord *records)
{
	static const StoreColumn columns[] = {
		{"record_id", INT8OID}, {"kind", TEXTOID}, {"version", TIMESTAMPTZOID}, {"effective", TIMESTAMPTZOID},
		{"seq", INT8OID}, {"digest", BYTEAOID}, {"created", TIMESTAMPTZOID}, {"source_modified", TIMESTAMPTZOID},
		{"inferred", BOOLOID}, {"claims", InvalidOid}, {"covers", TEXTARRAYOID}, {"payload", JSONBOID},
		{"run", INT8OID}, {"inbox_id", INT8OID}, {"received_at", TIMESTAMPTZOID}, {"tolerance", INTERVALOID},
		{"merged_into", TEXTOID}, {"origins", JSONBOID}, {"late", BOOLOID}, {"coverage", TEXTARRAYOID},
		{"changed", JSONBOID}
	};
	StoreRows	rows;

	find_known(events, nevents, records);
	find_late(events, nevents, records);
	store_rows_for(&rows, "observations", columns, lengthof(columns));
	for (int i = 0; i < nevents; i++)
	{
		Event	   *e = events[i];

		if (!e->stored)
			continue;
		store_put(&rows, Int64GetDatum(records[e->record].id));
		store_put_text(&rows, e->kind);
		store_put_time(&rows, e->o.raw);
		store_put_time(&rows, e->o.effective);
		store_put(&rows, Int64GetDatum(e->o.seq));
		store_put_bytes(&rows, e->o.digest, MERGE_DIGEST_LEN);
		store_put_time(&rows, e->o.created);
		store_put_time(&rows, e->o.modified);
		store_put(&rows, BoolGetDatum(e->o.inferred));
		store_put(&rows, PointerGetDatum(e->claims));
		store_put(&rows, e->covers);
		if (e->has_payload)
			store_put(&rows, e->payload);
		else
			store_put_null(&rows);
		if (e->run != 0)
			store_put(&rows, Int64GetDatum(e->run));
		else
			store_put_null(&rows);
		store_put(&rows, Int64GetDatum(e->inbox_id));
		store_put_time(&rows, e->received);
		store_put(&rows, usecs_interval(e->tolerance));
		store_put_text(&rows, e->o.into);
		if (e->o.written)
			store_put(&rows, e->origins);
		else
			store_put_null(&rows);
		store_put(&rows, BoolGetDatum(e->late));
		if (e->has_coverage)
			store_put(&rows, e->coverage);
		else
			store_put_null(&rows);
		if (e->changed != (Datum) 0)
			store_put(&rows, e->changed);
		else
			store_put_null(&rows);
		/* what is late is kept, and no more */
		e->stored = !e->late;
	}
	store_write(&rows);
}

/*
 * What a run shows proves that the record lives, or that it does not, though it
 * may bring nothing new: then it is folded anew where that can matter.
 */
static void
note_sighting(const Event *e, StoreRecord *r)
{
	MergeSightings *s = &r->m.sightings;
	int64	   *newest = e->o.kind == MK_DELETE ? &s->gone_at : &s->seen_at;

	if (e->sighted <= *newest)
		return;
	*newest = e->sighted;
	r->sighted = true;
	if (!r->m.alive || r->m.deleted_at != MERGE_TIME_MIN)
	{
		r->changed = true;
		r->refold = true;
		r->cause_id = Max(r->cause_id, e->inbox_id);
	}
}

/* Say once for each source that its snapshots have come to cover less. */
static void
report_uncovered(const StoreRecord *records, int nrecords)
{
	for (int i = 0; i < nrecords;)
	{
		StrView		source = records[i].source;
		ContactClaims missing = {0};
		StrView		fields;
		unsigned long n = 0;

		/* records are sorted by source */
		for (; i < nrecords && strview_cmp(records[i].source, source) == 0; i++)
		{
			const MergeCoverage *u = &records[i].m.uncovered;

			if (!records[i].changed || (u->fields == 0 && u->nelements == 0) ||
				strview_cmp(store_coverage_text(u), store_coverage_text(&records[i].was_uncovered)) == 0)
				continue;
			n++;
			missing.covers |= u->fields;
			/* of elements, those of one record say enough */
			if (u->nelements > missing.nelements)
			{
				missing.elements = u->elements;
				missing.nelements = u->nelements;
			}
		}
		if (n == 0)
			continue;
		fields = store_covers_text(&missing);
		ereport(NOTICE,
				(errmsg_plural("the newest snapshot of %lu record of source \"%.*s\" covers less than those before it",
							   "the newest snapshots of %lu records of source \"%.*s\" cover less than those before them",
							   n, n, source.len, source.ptr),
				 errdetail("No longer covered: %.*s.", fields.len - 2, fields.ptr + 1),
				 errhint("Fields keep what was said of them last; see contactsync.record_notices.")));
	}
}

/* Take applied events out of the inbox, and leave the others with their reason. */
static void
settle_inbox(StoreArray *applied, StoreArray *places, StoreArray *failed, StoreArray *codes, StoreArray *reasons)
{
	/* by where they were read, which holds as long as the snapshot does; the ids are for whom nobody should have moved */
	if (applied->n > 0 && store_remove("inbox", places) < (uint64) applied->n &&
		store_run("DELETE FROM contactsync.inbox i USING ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS u (id, place) "
				  "WHERE i.tenant_id = contactsync.current_tenant() AND i.ctid = u.place AND i.id = u.id",
				  2, (StoreArray *[]) {applied, places}) < (uint64) applied->n)
		store_run("DELETE FROM contactsync.inbox i USING " STORE_EACH(1)
				  "WHERE i.tenant_id = contactsync.current_tenant() AND i.id = u.x",
				  1, (StoreArray *[]) {applied});
	if (failed->n > 0)
	{
		uint64		n = store_run("UPDATE contactsync.inbox i SET failed_at = pg_catalog.clock_timestamp(), "
								  "error_code = u.code, error = u.reason "
								  "FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3)) "
								  "AS u (id, code, reason) "
								  "WHERE i.tenant_id = contactsync.current_tenant() AND i.id = u.id RETURNING i.source",
								  3, (StoreArray *[]) {failed, codes, reasons});

		for (uint64 row = 0; row < n; row++)
		{
			StrView		source = store_text(row, 1);

			stats_add(stats_of(source.ptr, source.len), SC_EVENTS_REJECTED, 1);
		}
	}
}

/* What became of events, and how long it took; they are sorted by source. */
static void
count_events(Event **events, int nevents, const StoreRecord *records)
{
	StatsPending *pending = NULL;
	TimestampTz now = GetCurrentTimestamp();

	for (int i = 0; i < nevents; i++)
	{
		const Event *e = events[i];

		if (i == 0 || strview_cmp(events[i - 1]->source, e->source) != 0)
			pending = stats_of(e->source.ptr, e->source.len);
		stats_add(pending, e->late ? SC_EVENTS_LATE : e->stored ? SC_EVENTS_APPLIED : SC_EVENTS_UNCHANGED, 1);
		stats_time(pending, SH_QUEUE_WAIT, now - e->received);
		/* what changed before the source was known here could not come any sooner */
		if (e->stored && e->o.effective >= e->mapping->since)
			stats_time(pending, SH_EVENT_LAG, now - e->o.effective);
		if (records[e->record].refold && !records[e->record].fresh && (i + 1 == nevents || events[i + 1]->record != e->record))
			stats_add(pending, SC_REFOLDS, 1);
	}
}

/* Give up on one event: the fault came from deeper than its payload's form. */
void
store_reject(int64 inbox_id, const char *code, const char *reason)
{
	StoreArray	applied;
	StoreArray	failed;
	StoreArray	codes;
	StoreArray	reasons;

	store_array_init(&applied, INT8OID);
	store_array_init(&failed, INT8OID);
	store_array_init(&codes, TEXTOID);
	store_array_init(&reasons, TEXTOID);
	store_array_add(&failed, Int64GetDatum(inbox_id), false);
	store_array_add(&codes, CStringGetTextDatum(code), false);
	store_array_add(&reasons, CStringGetTextDatum(reason), false);
	settle_inbox(&applied, NULL, &failed, &codes, &reasons);
}

/* What a batch reads into memory, but for its last event. */
#define MAX_BATCH_PAYLOADS	(32 * 1024 * 1024)

/* How many of the events read make a batch. */
static uint64
limit_payloads(uint64 n)
{
	Size		size = 0;

	for (uint64 row = 0; row < n; row++)
	{
		bool		isnull;
		Datum		payload = store_value(row, 9, &isnull);

		if (size > MAX_BATCH_PAYLOADS)
			return row;
		if (!isnull)
			size += toast_raw_datum_size(payload);
	}
	return n;
}

int
store_observe(int limit, int64 *after, int *claimed, StoreRecord **records, int *nrecords)
{
	StoreArray	max;
	StoreArray	position;
	StoreArray	sources;
	SPITupleTable *inbox;
	StoreMapping *mappings;
	int			nmappings;
	StoreArray	applied;
	StoreArray	places;
	StoreArray	failed;
	StoreArray	codes;
	StoreArray	reasons;
	StoreEvidence evidence;
	MemoryContext scratch;
	Event	   *events;
	Event	  **sorted;
	int			nevents = 0;
	uint64		n;

	store_array_init(&max, INT4OID);
	store_array_add(&max, Int32GetDatum(limit), false);
	store_array_init(&applied, INT8OID);
	store_array_init(&places, TIDOID);
	store_array_init(&failed, INT8OID);
	store_array_init(&codes, TEXTOID);
	store_array_init(&reasons, TEXTOID);
	store_evidence_init(&evidence);

	store_array_init(&position, INT8OID);
	store_array_add(&position, Int64GetDatum(*after), false);
	store_array_init(&sources, TEXTOID);

	/* past the position, so that no batch walks over what those before it deleted */
	n = store_run("SELECT id, source, source_id, kind, version, seq, created, coverage, payload, sighted, "
				  "inferred, received_at, source_modified, tolerance, run, origins, ctid, changed FROM contactsync.inbox "
				  "WHERE tenant_id = contactsync.current_tenant() AND failed_at IS NULL AND id > ($2)[1] "
				  "ORDER BY id LIMIT ($1)[1]", 2, (StoreArray *[]) {&max, &position});
	n = limit_payloads(n);
	*claimed = n;
	*nrecords = 0;
	if (n == 0)
		return 0;

	*after = store_int8(n - 1, 1);
	inbox = SPI_tuptable;
	for (uint64 row = 0; row < n; row++)
		store_array_add_name(&sources, store_text(row, 2));
	mappings = store_load_mappings(&sources, &nmappings);
	SPI_tuptable = inbox;

	scratch = AllocSetContextCreate(CurrentMemoryContext, "contactsync event", ALLOCSET_DEFAULT_SIZES);
	events = palloc(sizeof(Event) * n);
	sorted = palloc(sizeof(Event *) * n);
	for (uint64 row = 0; row < n; row++)
	{
		Event	   *e = &events[nevents];
		ContactError error;
		StrView		text;
		bool		isnull;

		CHECK_FOR_INTERRUPTS();
		if (read_event(row, e, store_find_mapping(mappings, nmappings, store_text(row, 2)), scratch, &error))
		{
			sorted[nevents] = e;
			nevents++;
			store_array_add(&applied, Int64GetDatum(e->inbox_id), false);
			store_array_add(&places, store_value(row, 17, &isnull), false);
			continue;
		}
		store_array_add(&failed, Int64GetDatum(e->inbox_id), false);
		text.ptr = error.limit ? "54000" : "22P02";
		text.len = 5;
		store_array_add_text(&codes, text);
		text.ptr = psprintf("%s (JSON path %s)", error.message, error.path);
		text.len = strlen(text.ptr);
		store_array_add_text(&reasons, text);
	}

	if (nevents > 0)
	{
		sort_events(sorted, nevents);
		*records = load_records(sorted, nevents, nrecords);
		store_observations(sorted, nevents, *records);
		for (int i = 0; i < nevents; i++)
		{
			StoreRecord *r = &(*records)[sorted[i]->record];

			note_sighting(sorted[i], r);
			if (sorted[i]->stored || r->changed)
				read_record(r);
			if (!sorted[i]->stored)
				continue;
			contact_deform(sorted[i]->claims, &sorted[i]->o.claims.value);
			r->changed = true;
			r->cause_id = Max(r->cause_id, sorted[i]->inbox_id);
			sorted[i]->more = store_asserts_more(&sorted[i]->o, r, &evidence);
			if (!r->refold && !store_step(r, &sorted[i]->o))
				r->refold = true;
			/* what a source gives back to us says nothing of who it is */
			if (!r->refold)
				sorted[i]->o.claims.value = merge_own_claims(&r->m.state, &sorted[i]->o.claims.value);
		}
		store_fold(*records, *nrecords, &evidence);
		for (int i = 0; i < nevents; i++)
		{
			StoreRecord *r = &(*records)[sorted[i]->record];

			if (!sorted[i]->stored || r->restamped || !(sorted[i]->more || r->refold))
				continue;
			store_note_evidence(&sorted[i]->o, r, &evidence);
			r->relink = true;
		}
		for (int i = 0; i < *nrecords; i++)
			(*records)[i].relink |= (*records)[i].refold;
		store_name_alone(*records, *nrecords, &evidence);
		store_save_records(*records, *nrecords);
		store_save_evidence(&evidence, *records, *nrecords);
		report_uncovered(*records, *nrecords);
	}
	count_events(sorted, nevents, *records);
	settle_inbox(&applied, &places, &failed, &codes, &reasons);
	return nevents;
}
