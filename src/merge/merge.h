/*
 * merge.h
 *		The pure heart: observations -> record state -> contact; keys -> identity.
 *
 * Everything here is a function of its arguments: no SPI, no catalogs, no
 * clock, no random numbers, no dependence on the order of its inputs: plain C
 * over plain structs.  Results are palloc'd in the current memory context and
 * point into their inputs where they can.
 *
 *	merge_fold.c		observations of one record -> its state
 *	merge_policy.c		rules
 *	merge_policy_io.c	the type merge_policy
 *	merge_derived.c		what a source shows because we wrote it there
 *	merge_displaced.c	and what it showed before
 *	merge_resolve.c		states of a contact's records -> the contact, with
 *						candidates, verdicts and conflicts
 *	merge_evidence.c	what keys and names say of who is who
 *	merge_identity.c	records, their keys and decisions -> clusters
 *	merge_aggregate.c	resolve() and the aggregate merge()
 */
#ifndef CONTACTSYNC_MERGE_H
#define CONTACTSYNC_MERGE_H

#include "contact/contact.h"

#define MERGE_TIME_MIN		PG_INT64_MIN	/* -infinity, also "not known" */
#define MERGE_DIGEST_LEN	16

/* ---- fold: one record ---- */

typedef enum MergeKind
{
	MK_SNAPSHOT,
	MK_PATCH,
	MK_DELETE,
	MK_UNDELETE,
	MK_BASE						/* stands for all that came before it */
} MergeKind;

typedef struct MergeBase MergeBase;

/*
 * One observation.  Versions order by (effective, raw, seq, digest), which is
 * total: the digest is taken over the canonical bytes of the whole observation.
 */
typedef struct MergeObservation
{
	MergeKind	kind;
	bool		inferred;		/* a delete by absence from a certified run */
	int64		effective;		/* raw stamp, clamped at receipt */
	int64		raw;
	int64		seq;
	uint8		digest[MERGE_DIGEST_LEN];
	int64		created;		/* MERGE_TIME_MIN = not given */
	int64		modified;		/* when the source last changed the record, where
								 * version is only when it was read;
								 * MERGE_TIME_MIN = not given */
	StrView		into;			/* of a delete: id of the record that the source
								 * merged this one into, or none */
	ContactClaims claims;
	bool		written;		/* a patch that we wrote there, and that was confirmed */
	int			norigins;
	struct MergeOrigin
	{
		ContactField field;
		StrView		key;		/* of an element; absent = of the field */
		StrView		record;		/* merge_origin_name() of whose claim was written */
	}		   *origins;
	int			nchanges;		/* when the source says that fields got their values */
	struct MergeChange
	{
		ContactField field;
		StrView		key;		/* of an element; absent = of the field */
		int64		at;
	}		   *changes;
	const MergeBase *base;		/* of a base, whose claims are the state */
} MergeObservation;

/* Where a record's newest observation stands in its version order. */
typedef struct MergePosition
{
	int64		effective;		/* MERGE_TIME_MIN = no observation yet */
	int64		raw;
	int64		seq;
	uint8		digest[MERGE_DIGEST_LEN];
} MergePosition;

/* Starts of the newest runs in which the source itself showed a record; MERGE_TIME_MIN = none. */
typedef struct MergeSightings
{
	int64		seen_at;		/* as a record that it has */
	int64		gone_at;		/* as one that was deleted, whatever stamp that bears */
} MergeSightings;

/* What snapshots speak about: whole fields, and single elements of others. */
typedef struct MergeCoverage
{
	uint32		fields;			/* CF_BIT mask */
	int			nelements;
	ContactItem *elements;		/* sorted, of fields that are not in the mask */
} MergeCoverage;

/*
 * A record's state: the accumulator of its fold, stored as it stands, so that
 * an observation in order costs the same however long the history is.
 *
 * In "state" each item's stamp holds the cell's as_of and changed_at (first
 * version of the last run of equals), CS_ESTIMATE where that was first sight
 * in a snapshot; cleared cells are tombstones.  merge_changed_at applies the
 * record's creation time to estimates.
 */
typedef struct MergeRecord
{
	bool		alive;			/* false: deleted, or never seen */
	bool		zombie;			/* dead, with newer observations held for review */
	int64		created;		/* least creation time given; MERGE_TIME_MIN = none */
	int64		deleted_at;		/* newest delete that holds; MERGE_TIME_MIN = none */
	int64		version;		/* effective version of the newest observation
								 * that the state is made of */
	int64		modified;		/* its last modification at the source, where that
								 * gives one; MERGE_TIME_MIN = it does not */
	MergePosition last;			/* newest observation of any kind */
	MergePosition reused;		/* the delete after which the source gave the id
								 * to a new record; set by merge_fold, and by
								 * its caller where names agree unset again */
	MergeSightings sightings;
	StrView		merged_into;	/* id of the record that the source merged it into, if
								 * that is what it died of */
	int32		same_version_conflicts;
	MergeCoverage covered;		/* by any snapshot that the state is made of */
	MergeCoverage uncovered;	/* of that, what the newest does not cover: there
								 * the state is what an older one said */
	ContactValue state;
	ContactValue cleared;		/* of cells that are empty now, but were not always, or
								 * that we wrote to: what the source had there last,
								 * stamped as it was then */
} MergeRecord;

extern int	merge_version_cmp(const MergeObservation *a, const MergeObservation *b);
extern int	merge_observation_cmp(const MergeObservation *a, const MergeObservation *b);
/* Is an observation of a version after this position? */
extern bool merge_observation_after(const MergeObservation *o, const MergePosition *p);
/* Does another observation of the same version win over the i-th?  obs is sorted. */
extern bool merge_overruled(const MergeObservation *obs, int nobs, int i);
extern void merge_record_init(MergeRecord *r);
/*
 * Put deletes by absence that a later sighting shows to have been wrong behind
 * the other observations, whose number is returned: nothing is lost to them.
 */
extern int	merge_drop_refuted(MergeObservation *obs, int nobs, MergeSightings sightings);
/*
 * Fold all observations of a record from nothing.  "source" goes into the stamps.
 * obs is sorted in place, refuted deletes last; duplicates (equal digests) count once.
 */
extern void merge_fold(MergeObservation *obs, int nobs, MergeSightings sightings,
					   StrView source, MergeRecord *result);
/*
 * Add one observation to a folded record in place of a refold; false, with r
 * untouched, if that is not possible (late, a delete or undelete, a record that
 * was deleted before): then the caller refolds.
 */
extern bool merge_fold_step(MergeRecord *r, const MergeObservation *obs, StrView source);

/* Does the state start after the i-th observation, a delete, if after none later? */
extern bool merge_starts_after(const MergeObservation *obs, int nobs, int i, bool sighted, bool *reused);

/* changed_at as comparisons see it: an estimate becomes min(created, version) or -infinity. */
extern int64 merge_changed_at(const MergeRecord *r, const ContactStamp *stamp);

/* ---- derived claims ---- */

extern StrView merge_origin_name(StrView source, StrView source_id);
/* Is what is shown what was written, as a source may give it back? */
extern bool merge_echoes(const ContactItem *written, const ContactItem *shown);
extern bool merge_has_derived(const ContactValue *state);
extern ContactValue merge_own_state(const ContactValue *state);
/* What was said, without what the state that it makes has from elsewhere. */
extern ContactValue merge_own_claims(const ContactValue *state, const ContactValue *said);
/* The same for all observations of a record, which are sorted: names and keys are evidence only if they are its own. */
extern void merge_keep_own_claims(MergeObservation *obs, int nobs, StrView source);

/* ---- policy ---- */

typedef enum MergeRuleKind
{
	MR_LAST_WRITE_WINS,
	MR_SOURCE_PRIORITY,
	MR_MANUAL_REVIEW,
	MR_MOST_FREQUENT,			/* said by most independent sources */
	MR_VERIFIED_FIRST,
	MR_OLDEST,
	MR_MOST_COMPLETE,			/* most members, elements or attributes */
	MR_UNION
} MergeRuleKind;

#define MR_COUNT			(MR_UNION + 1)

/* What it means that a source has emptied a field. */
typedef enum MergeClear
{
	ML_WITHDRAW,				/* it has no claim */
	ML_AUTHORITATIVE,			/* it claims that there is no value */
	ML_IGNORE,					/* its claim is the value that it had before */
	ML_REVIEW					/* as ignored, but asked about if its claim to
								 * emptiness would win */
} MergeClear;

#define ML_COUNT			(ML_REVIEW + 1)

typedef struct MergeRule
{
	MergeRuleKind kind;
	bool		given;			/* by the policy; else it is the default */
	bool		only;			/* sources not listed are excluded */
	int			nsources;
	StrView    *sources;		/* source names or classes, best first */
	MergeClear	clear;			/* of sources that are not named here: */
	int			nclears;
	struct MergeSourceClear
	{
		StrView		source;		/* name or class */
		MergeClear	clear;
	}		   *clears;
} MergeRule;

/*
 * What has a rule of its own: a group of single-valued fields, which wins whole
 * (name, job, or as the policy declares), a single-valued field outside of any,
 * or a list.  Named as its group or its field.
 */
typedef struct MergeUnit
{
	StrView		name;
	uint32		fields;			/* CF_BIT of its members */
	ContactField lead;			/* only claims that fill it compete, if any does;
								 * stands for the unit as a cell */
	bool		declared;		/* a group of the policy's own */
	MergeRule	rule;
} MergeUnit;

typedef struct MergePolicy
{
	int64		version;
	int			nunits;
	MergeUnit	units[CF_COUNT];
	uint8		unit_of[CF_COUNT];	/* index of a field's unit */
	MergeRule	primary[CF_COUNT];	/* <list>.primary, of emails and phones */
	int			nmetadata;
	struct MergeMetadataRule
	{
		StrView		key;
		MergeRule	rule;
	}		   *metadata;
} MergePolicy;

extern const char *const merge_rule_names[MR_COUNT];
extern const char *const merge_clear_names[ML_COUNT];
extern void merge_policy_defaults(MergePolicy *p);
/*
 * Read the JSON form: {"<field, group or set of fields>": {"rule": ..., "sources": [...],
 * "only": true}, "metadata.<key>": ..., "<list>.primary": ...}; a string stands
 * for a rule without options, "members" declares a group, the lead first, and
 * "clear" is what clears mean, of all sources or by source.
 * False on a fault, with *error describing it; result points into json.
 */
extern bool merge_policy_from_jsonb(const Jsonb *json, MergePolicy *p, ContactError *error);
/* Its canonical JSON form, without what was not given. */
extern Jsonb *merge_policy_to_jsonb(const MergePolicy *p);
extern bool merge_may_review(const MergeRule *rule);	/* asks about some source's clear */
extern const MergeUnit *merge_unit_of(const MergePolicy *p, ContactField field);
extern const MergeUnit *merge_unit_named(const MergePolicy *p, StrView name);	/* NULL if there is none */
extern uint32 merge_default_group(StrView name);	/* its fields, 0 if it is none */

/*
 * merge_policy_io.c: the type merge_policy, stored as the jsonb that is its
 * canonical form.
 */
#define DatumGetMergePolicyP(d_)	DatumGetJsonbP(d_)
/* The policy of a stored value, which it points into. */
extern void merge_policy_read(const Jsonb *stored, MergePolicy *p);

/* ---- resolve: one contact ---- */

/* One value that a record gave a manual_review cell at some time, in version order. */
typedef struct MergeRun
{
	ContactField field;			/* or the unit's lead */
	uint32		fields;			/* of the unit */
	StrView		key;			/* metadata key, else empty */
	int64		at;				/* first version of the run */
	StrView		bytes;			/* content of the claim; ptr NULL = withdrawn */
	bool		complete;		/* fills the group's lead member */
} MergeRun;

typedef struct MergeInput
{
	int64		record_id;		/* a name for the caller's use; decides nothing */
	StrView		source;
	StrView		source_class;
	StrView		source_id;		/* the record's id in its source */
	MergeRecord record;
	/* history for manual_review, only after MergeResult.needs_history */
	int			nruns;
	MergeRun   *runs;
} MergeInput;

typedef enum MergeDecisionKind
{
	MD_RESOLVE,					/* settles a conflict */
	MD_OVERRIDE,				/* stands above every rule until it is released */
	MD_RELEASE					/* of its target, for the records that it names */
} MergeDecisionKind;

/*
 * A decision that settles a cell; of two for one cell the later one wins.  One
 * that empties an element of a list is a tombstone: it falls to an assertion
 * that is later than itself.
 */
typedef struct MergeDecision
{
	MergeDecisionKind kind;
	int64		decided_at;
	int64		id;
	int64		target;			/* MD_RELEASE: whose force ends */
	const int64 *records;		/* what it is about; ends with 0 */
	/* its cell, by merge_decision_cell() */
	uint32		fields;			/* CF_BIT of all that it is about */
	ContactField field;			/* unit lead or field */
	bool		member;			/* of its group only this member */
	bool		group;			/* a group was named */
	StrView		key;			/* of an element, else absent */
	bool		cleared;		/* decided: no value */
	int			nitems;			/* the chosen value: items of the cell */
	ContactItem *items;
	StrView		chosen_source;	/* whose candidate was chosen; absent: a new value */
	/* what was seen when it was decided: digests of (source, source_id, bytes) */
	int			nseen;
	uint8	  (*seen)[MERGE_DIGEST_LEN];
	/* set by merge_resolve */
	bool		released;
	bool		of_list;		/* what a decision on the whole list says of an element */
} MergeDecision;

typedef enum MergeVerdict
{
	MV_WON,
	MV_LOST,
	MV_UNITED,					/* list element in the union */
	MV_IN_REVIEW,				/* candidate of an open conflict */
	MV_EXCLUDED,				/* by "only" */
	MV_WITHDRAWN,				/* cleared by its source */
	MV_INCOMPLETE,				/* does not fill the group's lead member */
	MV_OVERRULED,				/* by a decision */
	MV_DEAD,					/* its record is deleted */
	MV_ECHO						/* derived: its origin stands for it */
} MergeVerdict;

extern const char *const merge_verdict_names[];

/*
 * Find the cell that is named: of a unit, a field or an element.  False if the
 * name is none under this policy, by default, or by the decision's own items.
 */
extern bool merge_decision_cell(const MergePolicy *policy, StrView name, StrView element, MergeDecision *d);

/* One claim on one cell, for explain(); rank 1 is the best. */
typedef struct MergeCandidate
{
	int			input;			/* index into inputs; -1 = a decision */
	ContactField field;
	StrView		key;			/* list element or metadata key */
	const ContactItem *item;	/* NULL = no value (cleared) */
	int			rank;
	int64		changed_at;
	int64		as_of;
	bool		estimate;
	bool		derived;		/* shown because we wrote it there */
	bool		displaced;		/* was there until we wrote something else */
	int			support;		/* independent live sources that say so; -1 of a decision */
	const MergeRule *rule;
	MergeVerdict verdict;
	int64		decision_id;	/* 0 = none */
	bool		stale;			/* the decision did not know it, and says something else */
	uint8		digest[MERGE_DIGEST_LEN];	/* as in MergeDecision.seen */
} MergeCandidate;

/* What a person is asked about. */
typedef enum MergeReason
{
	MC_CANDIDATES,				/* sources disagree under manual_review */
	MC_STALE,					/* a source says something new since an override */
	MC_DECISIONS,				/* decisions disagree that did not know of each other */
	MC_SPLIT,					/* decided about records that were parted since */
	MC_DISPLACED				/* what we wrote over a source's value has no origin
								 * any more */
} MergeReason;

extern const char *const merge_reason_names[];

/* A cell that a person has to look at. */
typedef struct MergeConflict
{
	StrView		name;			/* of the group or field */
	ContactField field;			/* the unit's lead field */
	bool		member;			/* or only this member of a group */
	StrView		key;			/* element or metadata key, else empty */
	MergeReason reason;
	bool		open;			/* false: settled by a decision that still holds */
	int64		decision_id;
	int			ncandidates;
	MergeCandidate *candidates; /* decisions that disagree, then the claims in
								 * rank order; for a group the item is the lead member */
	struct MergeClaimItems
	{
		int			nitems;
		const ContactItem **items;
	}		   *claims;			/* parallel to candidates: the whole claim */
	uint8		digest[MERGE_DIGEST_LEN];	/* of all that is seen */
} MergeConflict;

typedef struct MergeResult
{
	bool		live;			/* some record is alive */
	bool		needs_history;	/* a manual_review cell disagrees: call again with
								 * the runs of its inputs */
	int			naming_input;	/* the input that gives the name, else the first
								 * live one in record key order; -1 = none */
	ContactValue contact;		/* stamped */
	int			nconflicts;
	MergeConflict *conflicts;
	int			disagreements[MR_COUNT];	/* scalars and groups about which claims differ, by the rule */
	int			ncandidates;	/* only if explained */
	MergeCandidate *candidates; /* by field, key, rank */
} MergeResult;

extern void merge_resolve(const MergePolicy *policy,
						  MergeInput *inputs, int ninputs,
						  MergeDecision *decisions, int ndecisions,
						  bool explain, MergeResult *result);

/* Digests of all claims on a cell, for MergeDecision.seen; decision names the cell only. */
extern void merge_seen(const MergePolicy *policy, MergeInput *inputs, int ninputs, const MergeDecision *cell,
					   uint8 (**seen)[MERGE_DIGEST_LEN], int *nseen);

/* ---- compaction ---- */

/*
 * What a base keeps of the observations that it stands for, beside the state that
 * is its claims: with it, whatever comes later has the result that it would have
 * had with them.
 */
struct MergeBase
{
	int64		created;		/* least creation time; MERGE_TIME_MIN = none */
	int64		version;
	int64		modified;
	int32		same_version_conflicts;
	MergeCoverage covered;
	MergeCoverage uncovered;
	ContactValue cleared;
	MergePosition last;			/* newest of them */
	int			nruns;			/* of cells that were under manual_review */
	MergeRun   *runs;
	/* evidence, of the caller */
	int			nnames;			/* every name */
	StrView    *names;
	StrView		first_name;		/* that a patch of the other half completes */
	StrView		last_name;
	int			nkeys;
	struct MergeBaseKey
	{
		StrView		key;
		int64		since;
		bool		mobile;
	}		   *keys;
	int			ndigests;		/* of all of them, sorted */
	uint8	  (*digests)[MERGE_DIGEST_LEN];
};

/*
 * Of the observations below a time, those whose part in the result cannot change
 * any more: they are moved to the front, and *base is set to stand for them.  Returns how many there are; 0 if
 * nothing is gained.  The caller adds their evidence and digests.
 */
extern int	merge_compact(const MergePolicy *policy, MergeObservation *obs, int nobs,
						  MergeSightings sightings, StrView source, int64 before,
						  MergeObservation *result, MergeBase *base);

/* The runs of a record's manual_review cells, from all of its observations. */
extern void merge_history(const MergePolicy *policy, MergeObservation *obs, int nobs,
						  MergeSightings sightings, StrView source, MergeRun **runs, int *nruns);

/* ---- identity ---- */

/* What a key is worth as evidence that two records are one person, weakest first. */
typedef enum IdentityStrength
{
	IS_GENERIC,					/* stands for nobody: no evidence */
	IS_SHARED,					/* role address, family mail, landline: links only
								 * where names agree */
	IS_PERSONAL,				/* mail, mobile: links unless names disagree */
	IS_EXCLUSIVE				/* declared so: two different ones are two people */
} IdentityStrength;

/* Thresholds: part of the policy. */
typedef struct IdentityPolicy
{
	int			generic_names;	/* a key of people with more names is generic */
	int			max_records;	/* no key links more, and no evidence more into one contact */
} IdentityPolicy;

/* A key that a record ever asserted, at the earliest version it did. */
typedef struct IdentityKey
{
	StrView		key;			/* "email:...", "tel:+...", "id:<metadata key>:<value>" */
	int64		first_version;
	bool		mobile;			/* the record calls the number a mobile one */
	bool		generic;		/* as identity_generic found */
} IdentityKey;

typedef struct IdentityRecord
{
	int64		record_id;		/* order in which records became known here; only
								 * decisions, and the caller's naming of clusters use it */
	StrView		source;
	StrView		source_id;
	StrView		merged_into;	/* id of the record that its source merged it into, or none */
	bool		alive;
	bool		many_per_source;	/* the source may hold a person more than once */
	int			nnames;			/* every name pair ever asserted, as key text */
	StrView    *names;			/* "last\nfirst" through contact_name_key */
	int			nkeys;
	IdentityKey *keys;
	int			cluster;		/* result: index of the cluster's least member */
} IdentityRecord;

/* merge, split: of whole contacts, as they were then; link, unlink: of records. */
typedef enum IdentityDecisionKind
{
	ID_LINK,					/* others follow the first of the records that
								 * they may be with */
	ID_UNLINK,
	ID_MERGE,					/* all are one */
	ID_SPLIT					/* each part stays together */
} IdentityDecisionKind;

/* That the records of two sides are, or are not, one person. */
typedef struct IdentityDecision
{
	IdentityDecisionKind kind;
	int64		decided_at;
	int64		id;
	int			nrecords;
	int64	   *records;		/* the side that keeps its contact's id */
	int			nothers;
	int64	   *others;
} IdentityDecision;

typedef enum IdentityRefusal
{
	IR_NAMES_DISAGREE,
	IR_NAMES_UNKNOWN,			/* and the key is a shared one */
	IR_IDS_DIFFER,				/* of one exclusive kind */
	IR_SAME_SOURCE,
	IR_OVERSIZE
} IdentityRefusal;

extern const char *const identity_refusal_names[];

/* Two clusters that share keys and were not made one, by their strongest evidence. */
typedef struct IdentityRefused
{
	int			a,
				b;				/* indexes of records, a before b in record key order */
	StrView		key;
	IdentityRefusal reason;
	double		score;			/* 0 to 1 */
} IdentityRefused;

/* merge_evidence.c */
extern void identity_policy_defaults(IdentityPolicy *policy);
extern IdentityStrength identity_strength(const IdentityKey *key);
/* 1 = they agree, -1 = they do not, 0 = one has none. */
extern int	identity_names_agree(int na, const StrView *a, int nb, const StrView *b);
/* Does a key stand for nobody, whoever asserts it? */
extern bool identity_placeholder(StrView key);
/* Or for nobody in particular?  "records" are all that assert it, or more than max_records of them. */
extern bool identity_generic(const IdentityPolicy *policy, StrView key,
							 IdentityRecord *const *records, int nrecords);
/* Length of what tells the kind of an exclusive key ("id:employee_id:"); 0 = it is none. */
extern int	identity_kind_len(StrView key);

/* merge_identity.c */
/*
 * Cluster records: all that are connected with each other by keys that are not
 * generic, decisions or merges at their source.  Sets cluster in each record;
 * links that evidence speaks for and that were refused are returned.
 */
extern void identity_cluster(const IdentityPolicy *policy, IdentityRecord *records, int nrecords,
							 IdentityDecision *decisions, int ndecisions,
							 IdentityRefused **refused, int *nrefused);

#endif							/* CONTACTSYNC_MERGE_H */
