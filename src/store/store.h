/*
 * store.h
 *		Between the tables and the pure algorithms.
 *
 *	store_rows.c		statements: kept plans, arrays and rows as parameters
 *	store_table.c		rows of one table, found by key and written, without one
 *	store_record.c		records and observations, from rows and to rows
 *	store_mapping.c		payloads as their source's connector reads them
 *	store_claims.c		what an observation claims
 *	store_remap.c		the same by another mapping: remap()
 *	store_observe.c		inbox -> observations -> records
 *	store_fold.c		records folded from their observations
 *	store_compact.c		old observations of a record in one
 *	store_evidence.c	observations -> the keys that records assert
 *	store_connect.c		records -> all that is connected with them
 *	store_link.c		records -> clusters
 *	store_name.c		clusters -> contact ids
 *	store_fresh.c		new records that nothing can link to others
 *	store_resolve.c		contacts and conflicts
 *	store_audit.c		audit rows of contacts
 *	store_apply.c		process(): the batches, and what calls what
 *	store_explain.c		explain()
 *	store_verify.h		rebuild(), verify(), what_if(), selftest_convergence()
 *
 * All of it runs inside the guard, under the tenant's lock, within one SPI
 * connection for each batch, whose memory goes with it.  Statements are set-based:
 * a batch costs a fixed number of them, however many events it has; those that follow
 * what connects records cost as many for each step of the longest way.
 */
#ifndef CONTACTSYNC_STORE_H
#define CONTACTSYNC_STORE_H

#include "executor/spi.h"
#include "utils/uuid.h"

#include "merge/merge.h"

/* A parameter that is an array, filled value by value. */
typedef struct StoreArray
{
	Oid			type;			/* of an element */
	int			n;
	int			max;
	Datum	   *values;
	bool	   *nulls;
} StoreArray;

/* A row of records. */
typedef struct StoreRecord
{
	int64		id;
	StrView		source;
	StrView		source_id;
	StrView		source_class;
	bool		has_contact;
	pg_uuid_t	contact_id;
	MergeRecord m;
	int64		horizon;		/* newest that was compacted; MERGE_TIME_MIN = nothing was */
	int			nnames;
	StrView    *names;
	Contact    *stored_state;	/* m.state and m.cleared as they are stored; NULL = none */
	Contact    *stored_cleared;
	bool		many_per_source;	/* its source may hold a person more than once */
	struct StoreFound *found;	/* where it was read from; NULL = it is not stored */
	HeapTuple	tuple;
	/* what a batch did to it */
	int64		cause_id;		/* last inbox row that touched it */
	bool		whole;			/* more than its head was read */
	bool		changed;
	bool		sighted;		/* seen_at has moved */
	bool		refold;
	bool		restamped;		/* all of its evidence is taken anew */
	MergeCoverage was_uncovered;	/* before the batch */
	bool		fresh;			/* not stored yet */
	bool		was_alive;		/* as it is stored */
	bool		relink;			/* something that decides its links has changed */
	bool		alone;			/* fresh, and nothing can link it: contact_id is minted */
	StoreArray *had;			/* keys that it asserted before, if restamped */
	int64		was_reused;		/* m.reused.effective before the batch */
	StrView		was_merged_into;	/* m.merged_into before the batch */
	bool		reborn;			/* by the batch it became somebody else's */
} StoreRecord;

/*
 * The distinct values of a parameter, as the relation u (x) to start a join from,
 * and the rows of a table whose column has such a value.  Without statistics
 * "= ANY ($1)", or a join that an ORDER BY can turn round, may be planned as a
 * filter over all rows of the tenant; OFFSET 0 leaves one way to go.
 */
#define STORE_EACH(n_) "(SELECT DISTINCT x FROM pg_catalog.unnest($" #n_ ") AS x) AS u "
#define STORE_EACH_ROW(n_, table_, column_, alias_) \
	STORE_EACH(n_) "CROSS JOIN LATERAL (SELECT t.* FROM contactsync." table_ " t " \
	"WHERE t.tenant_id = contactsync.current_tenant() AND t." column_ " = u.x OFFSET 0) AS " alias_ " "

/*
 * Rows for a statement, which sees them as the relation u; put column by column.
 * For many columns this costs a fraction of what as many arrays do.
 */
#define STORE_MAX_COLUMNS	32

typedef struct StoreColumn
{
	const char *name;
	Oid			type;			/* InvalidOid = contact */
} StoreColumn;

typedef struct StoreTable StoreTable;

typedef struct StoreRows
{
	TupleDesc	desc;
	MemoryContext context;
	Tuplestorestate *tuples;
	/* of store_rows_for() and store_rows_over() */
	const char *table;
	const StoreColumn *columns;
	bool		over;
	Relation	rel;
	StoreTable *direct;			/* NULL = by a statement */
	HeapTuple	old;			/* what the row that is put next replaces */
	MemoryContext scratch;		/* for the values of a row, while it is put */
	int			n;
	int			column;			/* the next one */
	Datum		values[STORE_MAX_COLUMNS];
	bool		nulls[STORE_MAX_COLUMNS];
} StoreRows;

/*
 * Rows that were found by their keys.  store_found_row() looks at one of them, whose
 * columns are then to be had by their number in the list that was asked for.
 */
#define STORE_MAX_KEYS		3

typedef struct StoreFound
{
	int64		n;
	TupleDesc	desc;
	HeapTuple  *tuples;			/* in the order of the keys */
	int		   *which;			/* parallel: the key, by its place */
	AttrNumber *columns;
	Datum	   *values;
	bool	   *nulls;
} StoreFound;

/* store_table.c: keys are those of an index after the tenant's; NULL finds nothing */
extern StoreFound *store_find(const char *table, const char *index, const char *const *columns, int ncolumns,
							  int nkeys, StoreArray **keys);
/* One row for each key that has any. */
extern StoreFound *store_find_one(const char *table, const char *index, const char *const *columns, int ncolumns,
								  int nkeys, StoreArray **keys);
/* Of the index's first key, from one value to another. */
extern StoreFound *store_find_between(const char *table, const char *index, const char *const *columns, int ncolumns,
									  StoreArray *from, StoreArray *to);
extern void store_found_row(StoreFound *found, int64 i);
extern StrView store_found_text(const StoreFound *found, int column);

static inline Datum
store_found_value(const StoreFound *found, int column, bool *isnull)
{
	*isnull = found->nulls[found->columns[column] - 1];
	return found->values[found->columns[column] - 1];
}

static inline int64
store_found_int8(const StoreFound *found, int column)
{
	bool		isnull;
	Datum		d = store_found_value(found, column, &isnull);

	return isnull ? 0 : DatumGetInt64(d);
}

static inline int64
store_found_time(const StoreFound *found, int column)	/* NULL = MERGE_TIME_MIN */
{
	bool		isnull;
	Datum		d = store_found_value(found, column, &isnull);

	return isnull ? MERGE_TIME_MIN : DatumGetInt64(d);
}

static inline bool
store_found_bool(const StoreFound *found, int column)
{
	bool		isnull;
	Datum		d = store_found_value(found, column, &isnull);

	return !isnull && DatumGetBool(d);
}

/*
 * Rows for a table, or over rows of it that were found: the first column is their
 * key, and what the columns do not say stays as it is.  They go there with store_write().
 */
extern void store_rows_for(StoreRows *rows, const char *table, const StoreColumn *columns, int ncolumns);
extern void store_rows_over(StoreRows *rows, const char *table, const StoreColumn *columns, int ncolumns);
extern void store_write(StoreRows *rows);
extern void store_table_put(StoreRows *rows);	/* for store_put */
/* Remove the rows at these places; how many were still there, none if it takes a statement. */
extern uint64 store_remove(const char *table, const StoreArray *places);

/* store_rows.c */
extern Oid	store_contact_type(void);
extern void store_array_init(StoreArray *a, Oid type);
extern void store_array_add(StoreArray *a, Datum value, bool isnull);
extern void store_array_add_text(StoreArray *a, StrView s);
/* A name of few, unless it is there. */
extern void store_array_add_name(StoreArray *a, StrView s);
extern void store_array_add_time(StoreArray *a, int64 t);	/* MERGE_TIME_MIN = NULL */
/*
 * From here on statements only read, under the active snapshot, as parallel workers
 * must; returns what held before, to be set again in PG_FINALLY.
 */
extern bool store_set_read_only(bool read_only);
extern bool store_is_read_only(void);
/* Run a statement (a literal: its plan is kept) with arrays as parameters. */
extern uint64 store_run(const char *sql, int nargs, StoreArray **args);
extern void store_rows_init(StoreRows *rows, const StoreColumn *columns, int ncolumns);
extern void store_put(StoreRows *rows, Datum value);
extern void store_put_null(StoreRows *rows);
extern void store_put_text(StoreRows *rows, StrView s);
extern void store_put_time(StoreRows *rows, int64 t);	/* MERGE_TIME_MIN = NULL */
extern void store_put_bytes(StoreRows *rows, const void *bytes, int len);	/* bytea */
/* Run a statement over the rows, which end with it; nothing if there are none. */
extern uint64 store_run_rows(const char *sql, StoreRows *rows);
/* Column of the current result; NULL is 0 or an absent view. */
extern Datum store_value(uint64 row, int col, bool *isnull);
extern StrView store_text(uint64 row, int col);
extern int64 store_int8(uint64 row, int col);
extern int64 store_time(uint64 row, int col);	/* NULL = MERGE_TIME_MIN */
extern StrView *store_names(uint64 row, int col, int *n);
extern MergeKind store_kind(StrView s);
extern StrView *store_texts(Datum array, int *n);
extern void store_policy(MergePolicy *policy);
extern Datum store_covers_array(const ContactClaims *claims);
extern StrView store_covers_text(const ContactClaims *claims);
extern StrView store_coverage_text(const MergeCoverage *coverage);
extern Datum store_coverage_array(const MergeCoverage *coverage);
extern void store_covers_parse(Datum covers, ContactClaims *claims);

/* store_record.c */
/* What resolution needs to know of a source. */
typedef struct StoreSource
{
	StrView		name;
	StrView		source_class;
	bool		many_per_source;
} StoreSource;

/* A record's observations. */
typedef struct StoreHistory
{
	int64		record_id;
	int			n;
	MergeObservation *observations;
} StoreHistory;

/* By record id; without those that came too late. */
typedef struct StoreHistories
{
	int			n;
	StoreHistory *histories;
	MergeObservation *observations;
} StoreHistories;

/* An array of uuid or int8 without its NULLs, sorted, each value once. */
extern StoreArray store_distinct(const StoreArray *a);
/* By id, each of them once; states are read only as they are stored. */
extern StoreRecord *store_records_by_id(const StoreArray *ids, int *n);
/* By contact, source and source id. */
extern StoreRecord **store_records_by_contact(const StoreArray *contacts, int *n);
/*
 * Into the places that the names have, without what is their source's; of those
 * found, store_read_rest() reads names, coverage and states.
 */
extern void store_records_by_name(StoreArray *sources, StoreArray *source_ids, StoreRecord *records);
extern void store_read_rest(StoreRecord *r);
/* Set m.state and m.cleared, which most need not. */
extern void store_deform_state(StoreRecord *r);
/* Write records that have changed, or were seen. */
extern void store_save_records(StoreRecord *records, int nrecords);
extern StoreHistories store_load_histories(const StoreArray *record_ids);

/* store_mapping.c: how the payloads of a source are to be read */
typedef struct StoreMapping
{
	StrView		source;
	bool		vcard;			/* a JSON string that holds a vCard */
	Jsonb	   *map;			/* NULL = canonical */
	ContactClaims covers;		/* what a mapped snapshot speaks about */
	StrView		source_class;
	bool		many_per_source;	/* see StoreRecord */
	int64		since;			/* when the source became known */
} StoreMapping;

/* Of the sources named, sorted; the result lives in the current context. */
extern StoreMapping *store_load_mappings(StoreArray *sources, int *nmappings);
extern const StoreMapping *store_find_mapping(const StoreMapping *mappings, int n, StrView source);
/* False if the payload cannot be read so, with *error set. */
extern bool store_read_payload(const StoreMapping *mapping, Jsonb *payload, bool patch,
							   ContactClaims *claims, ContactError *error);

/*
 * store_claims.c: what an observation claims, with its digest, from a payload and the
 * coverage that it came with, or NULL; kind and stamps are set before.  False if the
 * payload cannot be read, with *error set.
 */
extern bool store_read_claims(MergeObservation *o, const StoreMapping *mapping, const Datum *payload,
							  const Datum *coverage, MemoryContext scratch, Contact **claims, Datum *covers,
							  ContactError *error);

/*
 * store_observe.c: apply up to limit due events with ids past *after, which
 * moves on; *claimed says how many there were.
 */
extern int	store_observe(int limit, int64 *after, int *claimed, StoreRecord **records, int *nrecords);
extern void store_reject(int64 inbox_id, const char *code, const char *reason);
/*
 * store_evidence.c: keys that records assert, each as often as it was said, and
 * since when.
 */
typedef struct StoreEvidence
{
	StoreArray	anew;			/* records whose evidence so far is dropped */
	StoreArray	keys;			/* parallel: key, record, version, is it a mobile number */
	StoreArray	records;
	StoreArray	since;
	StoreArray	mobile;
	/* metadata keys that are exclusive ids: of a source, or (ptr NULL) of all */
	int			nexclusive;
	struct StoreExclusive
	{
		StrView		source;
		StrView		key;
	}		   *exclusive;
} StoreEvidence;

/* With what is declared to be an id, as of now. */
extern void store_evidence_init(StoreEvidence *evidence);
extern bool store_asserts_more(const MergeObservation *o, const StoreRecord *r, const StoreEvidence *evidence);
extern void store_note_evidence(const MergeObservation *o, const StoreRecord *r, StoreEvidence *evidence);
/* Write it, and note in the records which keys they had, where it is given anew. */
extern void store_save_evidence(StoreEvidence *evidence, StoreRecord *records, int nrecords);
/*
 * store_fold.c: add an observation to its record in place of a refold; false if that
 * is not possible.
 */
extern bool store_step(StoreRecord *r, const MergeObservation *o);
/* Observations, sorted, as evidence of who a record is: without what we wrote there. */
extern MergeObservation *store_own_claims(const StoreRecord *r, MergeObservation *obs, int nobs);
/* Fold a record from its observations, which are sorted by it. */
extern void store_fold_one(StoreRecord *r, MergeObservation *obs, int nobs);
/*
 * The names that a record had before or after a position; *first and *last: what it
 * was called last.  obs is sorted.
 */
extern void store_note_names(StoreRecord *r, const MergeObservation *obs, int nobs,
							 const MergePosition *cut, bool after, StrView *first, StrView *last);
/*
 * Fold those of the records that have refold set from all that is stored of them, and
 * collect the evidence of those that have restamped set, which is set here as well
 * where it may have become less.  Writes nothing.
 */
extern void store_fold(StoreRecord *records, int nrecords, StoreEvidence *evidence);
/* Fold records anew, since something else than an event has changed what they are;
 * restamp: their evidence, too. */
extern void store_refold(StoreArray *record_ids, int64 cause_id, bool restamp,
						 StoreRecord **records, int *nrecords);
/* store_claims.c: whose claims a write of ours was made of, as it is stored */
extern void store_read_origins(Datum origins, MergeObservation *o);
extern void store_read_changed(Datum changed, MergeObservation *o);
/* store_compact.c: what a base has beside its state, as it is stored */
extern MergeBase *store_read_base(StrView stored);
/* Is this the digest of one of the observations that the base stands for? */
extern bool store_base_knows(const MergeBase *base, const uint8 *digest);
/* Random bytes that nobody can guess. */
extern void store_random(void *bytes, int n);
/* store_fresh.c: records that nothing can link to any other. */
extern pg_uuid_t store_mint(void);
extern void store_name_alone(StoreRecord *records, int nrecords, const StoreEvidence *evidence);

/*
 * store_link.c: records that keys or decisions connect, directly or not, and
 * which of them are one contact.
 */
typedef struct StoreLinks
{
	int			n;
	StoreRecord *members;		/* by id */
	IdentityRecord *who;		/* parallel */
	int			ndecisions;		/* the latest first */
	IdentityDecision *decisions;
	pg_uuid_t  *pinned;			/* parallel: the id that a merge or split keeps */
	pg_uuid_t  *contact;		/* by who[].cluster; zero = no id was minted yet */
	int			nrefused;
	IdentityRefused *refused;
} StoreLinks;

/* All that is connected with these records; the evidence as it is stored. */
extern void store_connect(StoreArray *record_ids, StoreLinks *links);
/* Cluster them. */
extern void store_cluster_only(StoreLinks *links);
/* Cluster them and name the clusters; mint: give an id to those that have none. */
extern void store_cluster(StoreLinks *links, bool mint);
/* Link the changed records; the contacts that this touches. */
extern void store_link(StoreRecord *records, int nrecords, StoreArray *contacts, StoreArray *causes);
extern int	store_find_member(const StoreLinks *links, int64 record_id);
/* store_name.c */
extern void store_name_clusters(StoreLinks *links, bool mint);
/* Put the records into their contacts, and say which contacts that touches. */
extern void store_move_records(const StoreLinks *links, StoreArray *contacts, StoreArray *causes);
/* store_audit.c: an audit row for each change of a contact, cause_id 0 = none */
typedef struct StoreAudit
{
	StoreRows	rows;
	Oid			ids;			/* the sequence */
	/* the same for all of a batch */
	int64		generation;		/* of the tenant; advanced under its lock: whoever commits later has a greater one */
	TimestampTz now;
	StrView		caller;
	StrView		session_role;
	StrView		application_name;
	Datum		client_address;
	bool		no_client_address;
} StoreAudit;

extern void store_audit_init(StoreAudit *audit);
extern void store_audit_add(StoreAudit *audit, const char *cause, int64 cause_id, const char *operation,
							const pg_uuid_t *id, const Jsonb *changed);
extern void store_audit_write(StoreAudit *audit);

/* store_resolve.c: bring contacts up to date.  causes runs parallel, or is NULL. */
extern void store_resolve(StoreArray *contacts, const char *cause, StoreArray *causes);
/* After a batch: the contacts, and those of the records that are alone. */
extern void store_resolve_batch(StoreArray *contacts, StoreArray *causes, StoreRecord *records, int nrecords);
extern void store_input(const StoreRecord *r, MergeInput *in);
/* The inputs of one contact from its records, which are sorted by contact; next place. */
extern int	store_inputs(StoreRecord **records, int n, int from, pg_uuid_t *contact, MergeInput **inputs, int *ninputs);
extern void store_decisions(const MergePolicy *policy, StoreArray *record_ids, MergeDecision **decisions, int *ndecisions,
							int64 ***members);
/* One contact of the records about which these decisions are. */
extern void store_resolve_one(const MergePolicy *policy, MergeInput *inputs, int ninputs,
							  MergeDecision *decisions, int ndecisions, int64 **members,
							  MergeResult *result);
/* What the table conflicts says of a conflict: its field, JSON of its candidates, hex of their digest. */
extern const char *store_conflict_field(const MergeConflict *conflict);
extern char *store_candidates_json(const MergeConflict *conflict, const MergeInput *inputs);
extern char *store_seen_text(const MergeConflict *conflict);
extern void store_add_history(const MergePolicy *policy, MergeInput *inputs, int ninputs);

/*
 * store_apply.c: process() for the worker, of one tenant: up to max events in
 * this transaction.  True if more may be due.
 */
extern bool store_process(const char *tenant, int max);
/* Plans from a batch to rows by their keys, until the guard is left. */
extern void store_fix_plans(void);

#endif							/* CONTACTSYNC_STORE_H */
