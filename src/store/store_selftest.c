/*
 * store_selftest.c
 *		selftest_convergence(): stored observations in other orders give what is stored.
 *
 * For a random sample of contacts, with all that they are connected with, the
 * observations of each record are shuffled, some given twice, cut into batches
 * of random sizes and applied as process() would; records, keys and inputs are
 * given in random order to what clusters and resolves them.  Nothing is written.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

#include "compat.h"
#include "store/guard.h"
#include "store/store_verify.h"

PG_FUNCTION_INFO_V1(store_selftest_sql);

#define SHUFFLES		6
#define BATCH_CONTACTS	100

typedef struct Selftest
{
	ReturnSetInfo *rsinfo;
	pg_prng_state random;
	MergePolicy policy;
} Selftest;

static int
random_below(Selftest *t, int n)
{
	return pg_prng_uint64_range(&t->random, 0, n - 1);
}

static void
shuffle(Selftest *t, void *a, size_t size, int n)
{
	char	   *base = a;
	char	   *x = palloc(size);

	for (int i = n - 1; i > 0; i--)
	{
		int			k = random_below(t, i + 1);

		memcpy(x, base + i * size, size);
		memmove(base + i * size, base + k * size, size);
		memcpy(base + k * size, x, size);
	}
	pfree(x);
}

static void
diverges(Selftest *t, const StoreRecord *r, const char *what, const char *how)
{
	Datum		values[2];
	bool		nulls[2] = {!r->has_contact, false};

	values[0] = UUIDPGetDatum(&r->contact_id);
	values[1] = CStringGetTextDatum(psprintf("%s of record:%.*s/%.*s differs %s", what,
											 r->source.len, r->source.ptr, r->source_id.len, r->source_id.ptr, how));
	tuplestore_putvalues(t->rsinfo->setResult, t->rsinfo->setDesc, values, nulls);
}

static int
observation_cmp(const void *a, const void *b)
{
	return merge_observation_cmp(a, b);
}

/* Apply what arrives, in batches, as process() does: in order where it can, else anew. */
static void
arrive(Selftest *t, StoreRecord *r, const MergeObservation *arriving, int n)
{
	MergeObservation *known = palloc(sizeof(MergeObservation) * Max(n, 1));
	MergeObservation *scratch = palloc(sizeof(MergeObservation) * Max(n, 1));
	int			nknown = 0;

	for (int from = 0, to; from < n; from = to)
	{
		int			size = 1 + random_below(t, 8);
		int			first = nknown;
		bool		refold = false;

		CHECK_FOR_INTERRUPTS();

		to = Min(from + size, n);
		for (int i = from; i < to; i++)
		{
			bool		repeated = false;

			for (int k = 0; k < nknown && !repeated; k++)
				repeated = memcmp(known[k].digest, arriving[i].digest, MERGE_DIGEST_LEN) == 0;
			if (!repeated)
				known[nknown++] = arriving[i];
		}
		qsort(known + first, nknown - first, sizeof(MergeObservation), observation_cmp);
		for (int i = first; i < nknown && !refold; i++)
			refold = !store_step(r, &known[i]);
		if (!refold)
			continue;
		memcpy(scratch, known, sizeof(MergeObservation) * nknown);
		store_fold_one(r, scratch, nknown);
	}
	pfree(known);
	pfree(scratch);
}

static void
test_record(Selftest *t, const StoreRecord *stored, const MergeObservation *obs, int n)
{
	MergeObservation *order = palloc(sizeof(MergeObservation) * Max(2 * n, 1));

	for (int k = 0; k < SHUFFLES; k++)
	{
		StoreRecord r = *stored;
		int			m = n;

		memcpy(order, obs, sizeof(MergeObservation) * n);
		for (int i = 0; i < n; i++)
			if (random_below(t, 3) == 0)
				order[m++] = obs[i];
		shuffle(t, order, sizeof(MergeObservation), m);
		/* sightings are facts of the record, not of its observations */
		merge_fold(NULL, 0, stored->m.sightings, stored->source, &r.m);
		r.nnames = 0;
		arrive(t, &r, order, m);
		if (store_fold_differs(stored, &r))
			diverges(t, stored, "the fold", "in batches");
		shuffle(t, order, sizeof(MergeObservation), m);
		r = *stored;
		store_fold_one(&r, order, m);
		if (store_fold_differs(stored, &r))
			diverges(t, stored, "the fold", "at once");
	}
	pfree(order);
}

static void
test_records(Selftest *t, const StoreLinks *links, const StoreRecord *stored, StoreArray *ids)
{
	StoreHistories h = store_load_histories(ids);

	for (int k = 0; k < h.n; k++)
	{
		CHECK_FOR_INTERRUPTS();
		test_record(t, &stored[store_find_member(links, h.histories[k].record_id)], h.histories[k].observations, h.histories[k].n);
	}
}

/* Clusters of records and keys in another order. */
static void
test_clusters(Selftest *t, const StoreLinks *links)
{
	int		   *order = palloc(sizeof(int) * Max(links->n, 1));

	for (int i = 0; i < links->n; i++)
		order[i] = i;
	for (int k = 0; k < SHUFFLES; k++)
	{
		StoreLinks	other = *links;
		int		   *expected = palloc(sizeof(int) * Max(links->n, 1));

		shuffle(t, order, sizeof(int), links->n);
		other.members = palloc(sizeof(StoreRecord) * Max(links->n, 1));
		other.who = palloc0(sizeof(IdentityRecord) * Max(links->n, 1));
		for (int i = 0; i < links->n; i++)
		{
			const IdentityRecord *w = &links->who[order[i]];

			expected[i] = w->cluster;
			other.members[i] = links->members[order[i]];
			other.who[i].nkeys = w->nkeys;
			other.who[i].keys = palloc(sizeof(IdentityKey) * Max(w->nkeys, 1));
			memcpy(other.who[i].keys, w->keys, sizeof(IdentityKey) * w->nkeys);
			shuffle(t, other.who[i].keys, sizeof(IdentityKey), w->nkeys);
		}
		store_cluster_only(&other);
		for (int i = 0; i < links->n; i++)
		{
			bool		same = true;

			for (int j = 0; j < i && same; j++)
				same = (expected[i] == expected[j]) == (other.who[i].cluster == other.who[j].cluster);
			if (!same)
				diverges(t, &other.members[i], "the contact", "with records in another order");
		}
	}
}

/* The contacts of these records with inputs in another order. */
static void
test_contacts(Selftest *t, StoreLinks *links, StoreArray *ids)
{
	MergeInput *inputs = palloc(sizeof(MergeInput) * Max(links->n, 1));
	MergeDecision *decisions;
	int64	  **decided;
	int			ndecisions;
	int			n = 0;

	store_decisions(&t->policy, ids, &decisions, &ndecisions, &decided);
	for (int c = 0; c < links->n; c++, n = 0)
	{
		Contact    *first = NULL;

		CHECK_FOR_INTERRUPTS();
		for (int i = 0; i < links->n; i++)
			if (links->who[i].cluster == c)
				store_input(&links->members[i], &inputs[n++]);
		for (int k = 0; k <= SHUFFLES && n > 0; k++)
		{
			MergeResult result;
			Contact    *contact;

			store_resolve_one(&t->policy, inputs, n, decisions, ndecisions, decided, &result);
			contact = contact_form(&result.contact);
			if (first == NULL)
				first = contact;
			else if (VARSIZE(first) != VARSIZE(contact) || memcmp(first, contact, VARSIZE(first)) != 0)
				diverges(t, &links->members[c], "the value of the contact", "with records in another order");
			shuffle(t, inputs, sizeof(MergeInput), n);
		}
	}
}

/* Ids of n random contacts, or of all if there are not more. */
static StoreArray
sample(Selftest *t, int n)
{
	StoreArray	max;
	StoreArray	ids;
	StoreArray	probes;
	uint64		rows;

	store_array_init(&max, INT4OID);
	store_array_add(&max, Int32GetDatum(n), false);
	store_array_init(&ids, UUIDOID);
	store_array_init(&probes, INT8OID);
	rows = store_run("SELECT c.id FROM contactsync.contacts c WHERE c.tenant_id = contactsync.current_tenant() "
					 "ORDER BY c.id LIMIT ($1)[1]", 1, (StoreArray *[]) {&max});
	if (rows == n)
	{
		int64		least;
		int64		greatest;

		/* records by number: contact ids are not spread evenly */
		store_run("SELECT pg_catalog.min(r.id), pg_catalog.max(r.id) FROM contactsync.records r "
				  "WHERE r.tenant_id = contactsync.current_tenant()", 0, NULL);
		least = store_int8(0, 1);
		greatest = store_int8(0, 2);
		for (int i = 0; i < n; i++)
			store_array_add(&probes, Int64GetDatum(pg_prng_uint64_range(&t->random, least, greatest)), false);
		rows = store_run("SELECT DISTINCT n.contact_id FROM " STORE_EACH(1) "CROSS JOIN LATERAL ("
						 "SELECT r.contact_id FROM contactsync.records r WHERE r.tenant_id = contactsync.current_tenant() "
						 "AND r.id >= u.x ORDER BY r.id LIMIT 1) n WHERE n.contact_id IS NOT NULL ORDER BY n.contact_id",
						 1, (StoreArray *[]) {&probes});
	}
	for (uint64 i = 0; i < rows; i++)
	{
		bool		isnull;

		store_array_add(&ids, store_value(i, 1, &isnull), false);
	}
	return ids;
}

/* One batch of the sample, which outlives it. */
static void
test_batch(Selftest *t, StoreArray *contacts)
{
	StoreArray	seeds;
	StoreArray	ids;
	StoreLinks	links;
	StoreRecord *stored;
	StoreEvidence evidence;
	uint64		n;

	store_array_init(&seeds, INT8OID);
	store_array_init(&ids, INT8OID);
	n = store_run("SELECT r.id FROM " STORE_EACH_ROW(1, "records", "contact_id", "r"), 1, (StoreArray *[]) {contacts});
	for (uint64 i = 0; i < n; i++)
		store_array_add(&seeds, Int64GetDatum(store_int8(i, 1)), false);
	store_connect(&seeds, &links);
	stored = palloc(sizeof(StoreRecord) * Max(links.n, 1));
	memcpy(stored, links.members, sizeof(StoreRecord) * links.n);
	for (int i = 0; i < links.n; i++)
	{
		store_array_add(&ids, Int64GetDatum(links.members[i].id), false);
		links.members[i].refold = true;
	}
	test_records(t, &links, stored, &ids);
	store_evidence_init(&evidence);
	store_fold(links.members, links.n, &evidence);
	store_cluster_only(&links);
	test_clusters(t, &links);
	test_contacts(t, &links, &ids);
}

static void
run_selftest(Selftest *t, int n)
{
	StoreArray	contacts;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	store_policy(&t->policy);
	contacts = sample(t, n);
	for (int from = 0; from < contacts.n; from += BATCH_CONTACTS)
	{
		StoreArray	batch = contacts;

		batch.values += from;
		batch.nulls += from;
		batch.n = Min(contacts.n - from, BATCH_CONTACTS);
		/* its memory goes with it */
		if (SPI_connect() != SPI_OK_CONNECT)
			elog(ERROR, "could not connect to SPI");
		test_batch(t, &batch);
		SPI_finish();
	}
	SPI_finish();
}

static void
read_only_selftest(Selftest *t, int n)
{
	bool		read_only = store_set_read_only(true);

	PG_TRY();
	{
		run_selftest(t, n);
	}
	PG_FINALLY();
	{
		(void) store_set_read_only(read_only);
	}
	PG_END_TRY();
}

/*
 * selftest_convergence(n integer = 100, seed bigint = NULL) -> setof (contact_id, problem)
 */
Datum
store_selftest_sql(PG_FUNCTION_ARGS)
{
	Selftest	t = {0};
	int			n = PG_ARGISNULL(0) ? 0 : PG_GETARG_INT32(0);
	int64		seed;
	Guard		guard;

	if (n < 1)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the number of contacts must be at least 1"),
				 errhint("Give the number of contacts to be tried.")));
	/* one that is easy to type again */
	seed = PG_ARGISNULL(1) ? pg_prng_uint64_range(&pg_global_prng_state, 1, 999999999) : PG_GETARG_INT64(1);
	pg_prng_seed(&t.random, seed);
	InitMaterializedSRF(fcinfo, 0);
	t.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;

	guard_enter(&guard, NULL);
	PG_TRY();
	{
		store_fix_plans();
		PushActiveSnapshot(GetTransactionSnapshot());
		read_only_selftest(&t, n);
		PopActiveSnapshot();
	}
	PG_FINALLY();
	{
		guard_leave(&guard);
	}
	PG_END_TRY();
	if (PG_ARGISNULL(1))
		ereport(NOTICE,
				(errmsg("selftest_convergence(%d, " INT64_FORMAT ") repeats this run", n, seed)));
	return (Datum) 0;
}
