/*
 * store_compact.c
 *		compact(): old observations of a record in one.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/cryptohash.h"
#include "common/sha2.h"
#include "fmgr.h"
#include "libpq/pqformat.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "guc.h"
#include "store/guard.h"
#include "store/store.h"

PG_FUNCTION_INFO_V1(store_compact_sql);

#define BASE_VERSION		1
/* Observations that are looked at in one go, unless one record alone has more. */
#define BATCH_OBSERVATIONS	20000

/* ---- the stored form of a base: numbers in network order, texts with their length ---- */

static void
put_text(StringInfo buf, StrView s)
{
	pq_sendint32(buf, s.ptr ? s.len : -1);
	if (s.ptr)
		appendBinaryStringInfo(buf, s.ptr, s.len);
}

static StrView
get_text(StringInfo buf)
{
	StrView		s = {NULL, 0};
	int			len = pq_getmsgint(buf, 4);

	if (len >= 0)
	{
		s.ptr = pq_getmsgbytes(buf, len);
		s.len = len;
	}
	return s;
}

static void
put_digest(StringInfo buf, const uint8 *digest)
{
	appendBinaryStringInfo(buf, (const char *) digest, MERGE_DIGEST_LEN);
}

static void
put_coverage(StringInfo buf, const MergeCoverage *coverage)
{
	pq_sendint32(buf, coverage->fields);
	pq_sendint32(buf, coverage->nelements);
	for (int i = 0; i < coverage->nelements; i++)
	{
		pq_sendint8(buf, coverage->elements[i].field);
		put_text(buf, coverage->elements[i].key);
	}
}

static void
get_coverage(StringInfo buf, MergeCoverage *coverage)
{
	coverage->fields = pq_getmsgint(buf, 4);
	coverage->nelements = pq_getmsgint(buf, 4);
	coverage->elements = palloc0(sizeof(ContactItem) * Max(coverage->nelements, 1));
	for (int i = 0; i < coverage->nelements; i++)
	{
		coverage->elements[i].field = pq_getmsgbyte(buf);
		coverage->elements[i].key = get_text(buf);
	}
}

/* As text: a value's own form is this machine's. */
static void
put_contact(StringInfo buf, const ContactValue *v)
{
	StringInfoData text;

	initStringInfo(&text);
	if (v->nitems > 0)
		contact_to_json(&text, v, true);
	put_text(buf, strview(text.data, text.len));
}

static void
get_contact(StringInfo buf, ContactValue *v)
{
	StrView		text = get_text(buf);
	Datum		json;

	if (text.len == 0)
		return;
	json = DirectFunctionCall1(jsonb_in, CStringGetDatum(pnstrdup(text.ptr, text.len)));
	contact_deform(contact_from_jsonb(DatumGetJsonbP(json), NULL), v);
}

static void
put_base(StringInfo buf, const MergeBase *b)
{
	pq_sendint8(buf, BASE_VERSION);
	pq_sendint64(buf, b->created);
	pq_sendint64(buf, b->version);
	pq_sendint64(buf, b->modified);
	pq_sendint32(buf, b->same_version_conflicts);
	put_coverage(buf, &b->covered);
	put_coverage(buf, &b->uncovered);
	put_contact(buf, &b->cleared);
	pq_sendint64(buf, b->last.effective);
	pq_sendint64(buf, b->last.raw);
	pq_sendint64(buf, b->last.seq);
	put_digest(buf, b->last.digest);
	pq_sendint32(buf, b->nruns);
	for (int i = 0; i < b->nruns; i++)
	{
		pq_sendint8(buf, b->runs[i].field);
		pq_sendint32(buf, b->runs[i].fields);
		put_text(buf, b->runs[i].key);
		pq_sendint64(buf, b->runs[i].at);
		put_text(buf, b->runs[i].bytes);
		pq_sendint8(buf, b->runs[i].complete);
	}
	pq_sendint32(buf, b->nnames);
	for (int i = 0; i < b->nnames; i++)
		put_text(buf, b->names[i]);
	put_text(buf, b->first_name);
	put_text(buf, b->last_name);
	pq_sendint32(buf, b->nkeys);
	for (int i = 0; i < b->nkeys; i++)
	{
		put_text(buf, b->keys[i].key);
		pq_sendint64(buf, b->keys[i].since);
		pq_sendint8(buf, b->keys[i].mobile);
	}
	pq_sendint32(buf, b->ndigests);
	for (int i = 0; i < b->ndigests; i++)
		put_digest(buf, b->digests[i]);
}

MergeBase *
store_read_base(StrView stored)
{
	MergeBase  *b = palloc0(sizeof(MergeBase));
	StringInfoData buf;

	buf.data = unconstify(char *, stored.ptr);
	buf.len = buf.maxlen = stored.len;
	buf.cursor = 0;
	if (pq_getmsgbyte(&buf) != BASE_VERSION)
		elog(ERROR, "a base observation is of an unknown form");
	b->created = pq_getmsgint64(&buf);
	b->version = pq_getmsgint64(&buf);
	b->modified = pq_getmsgint64(&buf);
	b->same_version_conflicts = pq_getmsgint(&buf, 4);
	get_coverage(&buf, &b->covered);
	get_coverage(&buf, &b->uncovered);
	get_contact(&buf, &b->cleared);
	b->last.effective = pq_getmsgint64(&buf);
	b->last.raw = pq_getmsgint64(&buf);
	b->last.seq = pq_getmsgint64(&buf);
	memcpy(b->last.digest, pq_getmsgbytes(&buf, MERGE_DIGEST_LEN), MERGE_DIGEST_LEN);
	b->nruns = pq_getmsgint(&buf, 4);
	b->runs = palloc0(sizeof(MergeRun) * Max(b->nruns, 1));
	for (int i = 0; i < b->nruns; i++)
	{
		b->runs[i].field = pq_getmsgbyte(&buf);
		b->runs[i].fields = pq_getmsgint(&buf, 4);
		b->runs[i].key = get_text(&buf);
		b->runs[i].at = pq_getmsgint64(&buf);
		b->runs[i].bytes = get_text(&buf);
		b->runs[i].complete = pq_getmsgbyte(&buf);
	}
	b->nnames = pq_getmsgint(&buf, 4);
	b->names = palloc0(sizeof(StrView) * Max(b->nnames, 1));
	for (int i = 0; i < b->nnames; i++)
		b->names[i] = get_text(&buf);
	b->first_name = get_text(&buf);
	b->last_name = get_text(&buf);
	b->nkeys = pq_getmsgint(&buf, 4);
	b->keys = palloc0(sizeof(*b->keys) * Max(b->nkeys, 1));
	for (int i = 0; i < b->nkeys; i++)
	{
		b->keys[i].key = get_text(&buf);
		b->keys[i].since = pq_getmsgint64(&buf);
		b->keys[i].mobile = pq_getmsgbyte(&buf);
	}
	b->ndigests = pq_getmsgint(&buf, 4);
	b->digests = palloc(MERGE_DIGEST_LEN * Max(b->ndigests, 1));
	memcpy(b->digests, pq_getmsgbytes(&buf, b->ndigests * MERGE_DIGEST_LEN), b->ndigests * MERGE_DIGEST_LEN);
	pq_getmsgend(&buf);
	return b;
}

static int
digest_cmp(const void *a, const void *b)
{
	return memcmp(a, b, MERGE_DIGEST_LEN);
}

bool
store_base_knows(const MergeBase *base, const uint8 *digest)
{
	return bsearch(digest, base->digests, base->ndigests, MERGE_DIGEST_LEN, digest_cmp) != NULL;
}

/* ---- compacting ---- */

static int
key_cmp(const void *a, const void *b)
{
	const struct MergeBaseKey *x = a;
	const struct MergeBaseKey *y = b;

	return strview_cmp(x->key, y->key);
}

/* Every key that these observations assert, since when. */
static void
add_keys(MergeBase *base, const StoreRecord *r, const MergeObservation *obs, int nobs)
{
	StoreEvidence evidence;

	store_evidence_init(&evidence);
	for (int i = 0; i < nobs; i++)
		store_note_evidence(&obs[i], r, &evidence);
	base->keys = palloc0(sizeof(*base->keys) * Max(evidence.keys.n, 1));
	for (int i = 0; i < evidence.keys.n; i++)
	{
		text	   *t = DatumGetTextPP(evidence.keys.values[i]);

		base->keys[i].key = strview(VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t));
		base->keys[i].since = DatumGetTimestampTz(evidence.since.values[i]);
		base->keys[i].mobile = DatumGetBool(evidence.mobile.values[i]);
	}
	qsort(base->keys, evidence.keys.n, sizeof(*base->keys), key_cmp);
	base->nkeys = 0;
	for (int i = 0; i < evidence.keys.n; i++)
	{
		struct MergeBaseKey *last = &base->keys[base->nkeys - 1];

		if (base->nkeys == 0 || key_cmp(last, &base->keys[i]) != 0)
		{
			base->keys[base->nkeys++] = base->keys[i];
			continue;
		}
		last->since = Min(last->since, base->keys[i].since);
		last->mobile |= base->keys[i].mobile;
	}
}

static void
add_digests(MergeBase *base, const MergeObservation *obs, int nobs)
{
	int			n = 0;

	for (int i = 0; i < nobs; i++)
		n += obs[i].kind == MK_BASE ? obs[i].base->ndigests : 1;
	base->digests = palloc_extended((Size) MERGE_DIGEST_LEN * n, MCXT_ALLOC_HUGE);
	base->ndigests = 0;
	for (int i = 0; i < nobs; i++)
	{
		int			more = obs[i].kind == MK_BASE ? obs[i].base->ndigests : 1;

		memcpy(base->digests[base->ndigests], obs[i].kind == MK_BASE ? obs[i].base->digests[0] : obs[i].digest,
			   (Size) MERGE_DIGEST_LEN * more);
		base->ndigests += more;
	}
	qsort(base->digests, base->ndigests, MERGE_DIGEST_LEN, digest_cmp);
}

static Datum
digest_datum(const uint8 *digest)
{
	return PointerGetDatum(cstring_to_text_with_len((const char *) digest, MERGE_DIGEST_LEN));
}

/* What is written. */
typedef struct Replacement
{
	StoreRows	bases;
	StoreArray	records;		/* parallel: who is compacted, and up to where */
	StoreArray	horizons;
	StoreArray	gone_record;	/* parallel: what a base stands for */
	StoreArray	gone_digest;
} Replacement;

static void
compact_record(const MergePolicy *policy, StoreRecord *r, MergeObservation *obs, int nobs, int64 before,
			   Replacement *out)
{
	MergeObservation o;
	MergeBase	base;
	StringInfoData buf;
	uint8		digest[PG_SHA256_DIGEST_LENGTH];
	pg_cryptohash_ctx *ctx;
	const MergePosition start = {.effective = MERGE_TIME_MIN};
	MergeObservation *own;
	int			n = merge_compact(policy, obs, nobs, r->m.sightings, r->source, before, &o, &base);

	if (n == 0)
		return;
	own = store_own_claims(r, obs, n);
	store_note_names(r, own, n, &start, true, &base.first_name, &base.last_name);
	base.nnames = r->nnames;
	base.names = r->names;
	add_keys(&base, r, own, n);
	add_digests(&base, obs, n);
	for (int i = 0; i < n; i++)
	{
		store_array_add(&out->gone_record, Int64GetDatum(r->id), false);
		store_array_add(&out->gone_digest, digest_datum(obs[i].digest), false);
	}

	initStringInfo(&buf);
	put_base(&buf, &base);
	ctx = pg_cryptohash_create(PG_SHA256);
	if (pg_cryptohash_init(ctx) < 0 || pg_cryptohash_update(ctx, (uint8 *) buf.data, buf.len) < 0 ||
		pg_cryptohash_final(ctx, digest, sizeof(digest)) < 0)
		elog(ERROR, "could not compute a digest");
	pg_cryptohash_free(ctx);

	store_put(&out->bases, Int64GetDatum(r->id));
	store_put_time(&out->bases, o.raw);
	store_put_time(&out->bases, o.effective);
	store_put(&out->bases, Int64GetDatum(o.seq));
	store_put(&out->bases, digest_datum(digest));
	store_put_time(&out->bases, o.created);
	store_put(&out->bases, PointerGetDatum(contact_form(&o.claims.value)));
	store_put(&out->bases, store_coverage_array(&base.covered));
	store_put(&out->bases, PointerGetDatum(cstring_to_text_with_len(buf.data, buf.len)));
	store_array_add(&out->records, Int64GetDatum(r->id), false);
	store_array_add_time(&out->horizons, o.effective);
}

static void
write_replacement(Replacement *out)
{
	if (out->records.n == 0)
		return;
	store_run("DELETE FROM contactsync.observations o USING ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) "
			  "AS u (record_id, digest) WHERE o.tenant_id = contactsync.current_tenant() "
			  "AND o.record_id = u.record_id AND o.digest = u.digest",
			  2, (StoreArray *[]) {&out->gone_record, &out->gone_digest});
	store_run_rows("INSERT INTO contactsync.observations "
				   "(record_id, kind, version, effective, seq, digest, created, claims, covers, received_at, tolerance, base) "
				   "SELECT u.record_id, 'base', u.version, u.effective, u.seq, u.digest, u.created, u.claims, u.covers, "
				   "pg_catalog.clock_timestamp(), '0', u.base FROM u", &out->bases);
	store_run("UPDATE contactsync.records r SET horizon = u.horizon "
			  "FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2)) AS u (id, horizon) "
			  "WHERE r.tenant_id = contactsync.current_tenant() AND r.id = u.id",
			  2, (StoreArray *[]) {&out->records, &out->horizons});
}

/* Some records with ids past *after, which moves on; false if there are no more. */
static bool
compact_batch(int64 before, int limit, int64 *after, int64 *replaced)
{
	static const StoreColumn columns[] = {
		{"record_id", INT8OID}, {"version", TIMESTAMPTZOID}, {"effective", TIMESTAMPTZOID}, {"seq", INT8OID},
		{"digest", BYTEAOID}, {"created", TIMESTAMPTZOID}, {"claims", InvalidOid}, {"covers", TEXTARRAYOID},
		{"base", BYTEAOID}
	};
	StoreArray	position;
	StoreArray	horizon;
	StoreArray	max;
	StoreArray	ids;
	Replacement out;
	MergePolicy policy;
	StoreRecord *records;
	StoreHistories h;
	int64		total = 0;
	uint64		n;
	int			nrecords;
	int			r = 0;

	store_array_init(&position, INT8OID);
	store_array_add(&position, Int64GetDatum(*after), false);
	store_array_init(&horizon, TIMESTAMPTZOID);
	store_array_add(&horizon, TimestampTzGetDatum(before), false);
	store_array_init(&max, INT4OID);
	store_array_add(&max, Int32GetDatum(limit), false);
	store_array_init(&ids, INT8OID);
	store_array_init(&out.records, INT8OID);
	store_array_init(&out.horizons, TIMESTAMPTZOID);
	store_array_init(&out.gone_record, INT8OID);
	store_array_init(&out.gone_digest, BYTEAOID);
	store_rows_init(&out.bases, columns, lengthof(columns));

	n = store_run("SELECT o.record_id, pg_catalog.count(*) FROM contactsync.observations o "
				  "WHERE o.tenant_id = contactsync.current_tenant() AND o.record_id > ($1)[1] "
				  "AND o.effective < ($2)[1] AND NOT o.late "
				  "GROUP BY o.record_id HAVING pg_catalog.count(*) > 1 ORDER BY o.record_id LIMIT ($3)[1]",
				  3, (StoreArray *[]) {&position, &horizon, &max});
	for (uint64 row = 0; row < n && (ids.n == 0 || total + store_int8(row, 2) <= BATCH_OBSERVATIONS); row++)
	{
		*after = store_int8(row, 1);
		total += store_int8(row, 2);
		store_array_add(&ids, Int64GetDatum(*after), false);
	}
	if (ids.n == 0)
		return false;

	store_policy(&policy);
	records = store_records_by_id(&ids, &nrecords);
	h = store_load_histories(&ids);
	for (int k = 0; k < h.n; k++)
	{
		const StoreHistory *history = &h.histories[k];

		CHECK_FOR_INTERRUPTS();
		/* both are sorted by record */
		while (r < nrecords && records[r].id != history->record_id)
			r++;
		if (r == nrecords)
			elog(ERROR, "record " INT64_FORMAT " is missing", history->record_id);
		store_deform_state(&records[r]);
		compact_record(&policy, &records[r], history->observations, history->n, before, &out);
	}
	write_replacement(&out);
	*replaced += out.gone_record.n;
	return true;
}

/*
 * _compact(before timestamptz, max integer) -> bigint
 *		Observations that were replaced by bases.
 */
Datum
store_compact_sql(PG_FUNCTION_ARGS)
{
	int64		before;
	int			max = PG_ARGISNULL(1) ? PG_INT32_MAX : PG_GETARG_INT32(1);
	int64		after = 0;
	int64		replaced = 0;

	if (PG_ARGISNULL(0))
		ereport(ERROR,
				(errcode(ERRCODE_NULL_VALUE_NOT_ALLOWED),
				 errmsg("before must not be null")));
	before = PG_GETARG_TIMESTAMPTZ(0);
	if (max < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the number of observations must not be negative")));
	if (before > GetCurrentTimestamp())
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("observations can be compacted up to now only"),
				 errhint("What comes later and is not newer than what was compacted is not merged any more.")));
	guard_require_active();
	guard_lock_tenant();
	store_fix_plans();
	for (bool more = true; more && replaced < max;)
	{
		CHECK_FOR_INTERRUPTS();
		if (SPI_connect() != SPI_OK_CONNECT)
			elog(ERROR, "could not connect to SPI");
		more = compact_batch(before, guc_batch_size, &after, &replaced);
		SPI_finish();
	}
	PG_RETURN_INT64(replaced);
}
