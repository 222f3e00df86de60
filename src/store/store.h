/*
 * store.h
 *		Between the tables and the pure algorithms.
 *
 *	store_rows.c		rows to structs and arrays of parameters
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
	/* what a batch did to it */
	int64		cause_id;		/* last inbox row that touched it */
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

/* The columns that store_read_record reads, of records r and sources s. */
#define STORE_RECORD_COLUMNS	STORE_RECORD_COLUMNS_OF("s.class", "coalesce(s.settings -> 'duplicates' = 'true', false)")
/* The same with expressions for what is the source's. */
#define STORE_RECORD_COLUMNS_OF(class_, many_) \
	"r.id, r.source, r.source_id, " class_ ", r.contact_id, r.alive, r.zombie, " \
	"r.created, r.deleted_at, r.version, r.source_modified, r.seen_at, r.gone_at, r.last_effective, r.last_raw, r.last_seq, " \
	"r.last_digest, r.same_version_conflicts, r.names, r.state, r.covered, r.uncovered, r.merged_into, " \
	many_ ", r.cleared, r.reused_at, r.horizon"
#define STORE_SOURCE_JOIN \
	" CROSS JOIN LATERAL (SELECT x.* FROM contactsync.sources x " \
	"WHERE x.tenant_id = contactsync.current_tenant() AND x.name = r.source OFFSET 0) AS s "
#define STORE_RECORD_NCOLS	27

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

typedef struct StoreRows
{
	TupleDesc	desc;
	Tuplestorestate *tuples;
	MemoryContext scratch;		/* for the values of a row, while it is put */
	int			n;
	int			column;			/* the next one */
	Datum		values[STORE_MAX_COLUMNS];
	bool		nulls[STORE_MAX_COLUMNS];
} StoreRows;

/* store_rows.c */
extern Oid	store_contact_type(void);
extern void store_array_init(StoreArray *a, Oid type);
extern void store_array_add(StoreArray *a, Datum value, bool isnull);
extern void store_array_add_text(StoreArray *a, StrView s);
extern void store_array_add_time(StoreArray *a, int64 t);	/* MERGE_TIME_MIN = NULL */
/*
 * From here on statements only read, under the active snapshot, as parallel workers
 * must; returns what held before, to be set again in PG_FINALLY.
 */
extern bool store_set_read_only(bool read_only);
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
extern void store_read_record(uint64 row, StoreRecord *r);
/*
 * The same in three parts: names, coverage and the state as stored are the rest;
 * only the last sets m.state and m.cleared, which most need not.
 */
extern void store_read_record_head(uint64 row, StoreRecord *r);
extern void store_read_record_rest(uint64 row, StoreRecord *r);
extern void store_deform_state(StoreRecord *r);
extern void store_read_observation(uint64 row, MergeObservation *o, int64 *record_id);
/* All observations of some records, ordered by record. */
extern uint64 store_load_observations(StoreArray *record_ids);
extern void store_policy(MergePolicy *policy);
extern Datum store_covers_array(const ContactClaims *claims);
extern StrView store_covers_text(const ContactClaims *claims);
extern StrView store_coverage_text(const MergeCoverage *coverage);
extern Datum store_coverage_array(const MergeCoverage *coverage);
extern void store_covers_parse(Datum covers, ContactClaims *claims);

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
/* Write records that have changed, or were seen. */
extern void store_save_records(StoreRecord *records, int nrecords);
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
extern void store_audit_init(StoreRows *rows);
extern void store_audit_add(StoreRows *rows, const char *cause, int64 cause_id, const char *operation,
							const pg_uuid_t *id, const Jsonb *changed);
extern void store_audit_write(StoreRows *rows);

/* store_resolve.c: bring contacts up to date.  causes runs parallel, or is NULL. */
extern void store_resolve(StoreArray *contacts, const char *cause, StoreArray *causes);
/* After a batch: the contacts, and those of the records that are alone. */
extern void store_resolve_batch(StoreArray *contacts, StoreArray *causes, StoreRecord *records, int nrecords);
extern void store_input(const StoreRecord *r, MergeInput *in);
/* The inputs of one contact from the current result, from row on; next row. */
extern uint64 store_inputs(uint64 row, pg_uuid_t *contact, MergeInput **inputs, int *ninputs);
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
