/*
 * merge_claims.h
 *		Between the parts of resolve: the claims on a cell, and what is made of them.
 *
 *	merge_claims.c		collecting claims, output, explain
 *	merge_order.c		their order, by each rule
 *	merge_review.c		manual review: the established value, decisions, conflicts
 *	merge_displaced.c	what our writes displaced
 *	merge_lists.c		lists, by union or whole, and their primaries
 *	merge_resolve.c		cells and groups, and the whole contact
 */
#ifndef CONTACTSYNC_MERGE_CLAIMS_H
#define CONTACTSYNC_MERGE_CLAIMS_H

#include "merge/merge.h"

/* What one record says of one cell. */
typedef struct MergeClaim
{
	int			input;
	int			nitems;
	const ContactItem **items;	/* none: withdrawn, or a claim that there is no value */
	const ContactStamp **stamps;	/* of the items */
	bool		complete;		/* fills the group's lead member */
	bool		witnessed;
	bool		derived;		/* shown because we wrote it there: no origin of its own */
	bool		displaced;		/* not shown any more because we wrote something else */
	bool		verified;
	int64		changed_at;
	int64		as_of;
	int64		known_since;	/* changed_at at the latest, where that is an estimate */
	int64		compare_at;		/* what recency is judged by */
	int			rank;			/* of its source in the rule */
	int			votes;			/* by merge_count_votes() */
	int			nattributes;	/* for MR_MOST_COMPLETE */
	StrView		bytes;
	MergeVerdict verdict;
} MergeClaim;

typedef struct MergeResolver
{
	const MergePolicy *policy;
	MergeInput *inputs;
	int			ninputs;
	MergeDecision *decisions;
	int			ndecisions;
	bool		explain;
	MergeResult *result;
	int			maxitems;
	int			maxcandidates;
	int			maxconflicts;
	/* scratch: the claims on the cell at hand */
	MergeClaim *claims;
	int			nclaims;
	const MergeRule *rule;		/* of the cell */
} MergeResolver;

static const StrView nokey = {NULL, 0};

/* merge_derived.c */
extern MergeInput *merge_settle_derived(const MergeInput *inputs, int ninputs);

/* merge_displaced.c */
extern void merge_offer_displaced(MergeResolver *s);

/* merge_order.c */
extern int64 merge_last_modification(const MergeRecord *r);
extern int	merge_source_rank(const MergeRule *rule, const MergeInput *in);
extern bool merge_is_excluded(const MergeRule *rule, const MergeInput *in);
extern int	merge_input_cmp(const MergeInput *a, const MergeInput *b);
extern MergeClear merge_clear_of(const MergeRule *rule, const MergeInput *in);
extern void merge_claim_add(MergeClaim *c, const MergeInput *in, const ContactValue *from, const ContactItem *item);
extern void merge_claim_stamp(MergeClaim *c, const MergeInput *in, const ContactStamp *stamp);
extern void merge_count_votes(MergeResolver *s);
extern void merge_order(MergeResolver *s, const MergeRule *rule);

/* merge_claims.c */
extern MergeClaim *merge_claim_init(MergeResolver *s, int input, int maxitems);
extern StrView merge_claim_bytes(const ContactItem **items, int nitems);
extern void merge_claim_digest(const MergeResolver *s, const MergeClaim *c, uint8 *digest);
extern void merge_emit(MergeResolver *s, const ContactItem *item, StrView source, int64 as_of, int64 changed_at, uint8 flags);
extern void merge_emit_claim_item(MergeResolver *s, const MergeClaim *c, int k);
extern void merge_explain_item(MergeResolver *s, ContactField field, StrView key, const MergeClaim *c, int k, int rank, const MergeDecision *decision);
extern void merge_explain_claims(MergeResolver *s, ContactField field, StrView key, const MergeDecision *decision);
extern void merge_collect(MergeResolver *s, uint32 fields, StrView key, ContactField lead);
/*
 * The same, with a clear that is to be reviewed taken as something else; true if
 * there is one.
 */
extern bool merge_collect_as(MergeResolver *s, uint32 fields, StrView key, ContactField lead, MergeClear review_as);
/* Does the record say of a list that it is empty?  Its stamps count for the claim. */
extern bool merge_claim_empty_list(MergeClaim *c, const MergeInput *in, ContactField field);
extern bool merge_competes(const MergeClaim *c);
extern bool merge_lead_filled(const MergeClaim *c, ContactField lead);
extern int	merge_count_distinct(const MergeResolver *s);

/* merge_review.c */
extern void merge_mark_released(MergeDecision *decisions, int ndecisions);
extern int	merge_established(MergeResolver *s, ContactField lead, StrView key);
/* The decision in force on a cell: a unit or an element of one, or a member of a group. */
extern const MergeDecision *merge_decision_for(const MergeResolver *s, ContactField field, bool member, StrView key);
/* That of a group's member by itself, if the group was not decided about since. */
extern const MergeDecision *merge_member_decision(const MergeResolver *s, ContactField field);
extern bool merge_decided_later(const MergeDecision *a, const MergeDecision *b);
extern void merge_add_conflict(MergeResolver *s, ContactField field, bool member, StrView key,
							   MergeReason reason, const MergeDecision *decision);
extern void merge_add_candidate(MergeResolver *s, MergeConflict *conflict, MergeClaim *c);
/* Open a conflict if a decision has gone stale, or stands against another one. */
extern void merge_question(MergeResolver *s, ContactField field, bool member, StrView key, const MergeDecision *decision);
extern bool merge_decides(const MergeDecision *decision, const MergeClaim *c);
extern bool merge_is_parted(const MergeResolver *s, const MergeDecision *decision);
extern bool merge_is_stale(const MergeResolver *s, const MergeDecision *decision, const MergeClaim *c);
/* Is it the removal of an element that was asserted since? */
extern bool merge_has_fallen(const MergeResolver *s, const MergeDecision *decision);
extern void merge_overrule(MergeResolver *s, const MergeDecision *decision);
extern void merge_decide(MergeResolver *s, const MergeDecision *decision);

/* merge_lists.c */
extern int	merge_unique_keys(StrView *keys, int n);
extern int	merge_list_keys(MergeResolver *s, ContactField field, StrView **keys);
extern int	merge_decided_keys(MergeResolver *s, ContactField field, const MergeDecision *whole, StrView **keys, int n);
extern void merge_resolve_list(MergeResolver *s, const MergeUnit *unit);

/* merge_resolve.c */
extern const MergeRule *merge_metadata_rule(const MergePolicy *p, StrView key);

#endif							/* CONTACTSYNC_MERGE_CLAIMS_H */
