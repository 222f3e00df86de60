/*
 * merge_displaced.c
 *		What our writes displaced.
 *
 * When a derived cell's origin is gone, the cell is no claim any more; nor is what the
 * source had there before, which it does not show.  Which of the two losses was
 * meant nobody knows, so the former value is offered for review, until it was decided
 * about or the source says something there by itself.
 */
#include "postgres.h"

#include "merge/merge_claims.h"

/* The former value of a cell that holds nothing of its own and nothing from elsewhere, or NULL. */
static const ContactItem *
displaced_item(const MergeInput *in, ContactField field, StrView key)
{
	int			at = in->record.alive && contact_find(&in->record.state, field, key) < 0 ?
		contact_find(&in->record.cleared, field, key) : -1;

	return at < 0 ? NULL : &in->record.cleared.items[at];
}

/* Has a decision since settled what the cell holds? */
static const MergeDecision *
settled_by(const MergeResolver *s, ContactField field, ContactField lead, StrView key, const MergeClaim *c)
{
	const MergeDecision *all[3] = {
		merge_decision_for(s, field, field != lead, key),
		merge_decision_for(s, lead, false, nokey),
		merge_decision_for(s, lead, true, nokey)	/* of a group's lead alone */
	};
	const MergeDecision *latest = NULL;

	for (int i = 0; i < (field == lead ? 3 : 2); i++)
		if (all[i] && all[i]->decided_at >= c->changed_at && (!latest || merge_decided_later(all[i], latest)))
			latest = all[i];
	return latest;
}

static MergeConflict *
conflict_on(MergeResult *result, ContactField field, bool member, StrView key)
{
	for (int i = 0; i < result->nconflicts; i++)
		if (result->conflicts[i].field == field && result->conflicts[i].member == member &&
			strview_cmp(result->conflicts[i].key, key) == 0)
			return &result->conflicts[i];
	return NULL;
}

/* Offer what was displaced in a cell: a field, one member of a group, an element or a metadata key. */
static void
offer(MergeResolver *s, ContactField field, StrView key)
{
	const MergeUnit *unit = merge_unit_of(s->policy, field);
	bool		member = (unit->fields & ~CF_BIT(field)) != 0;
	MergeResult *result = s->result;
	MergeConflict *conflict;
	int			nclaims;
	const MergeDecision *settled = NULL;
	bool		open = false;

	s->rule = field == CF_METADATA ? merge_metadata_rule(s->policy, key) : &unit->rule;
	merge_collect(s, CF_BIT(field), key, field);
	nclaims = s->nclaims;
	for (int i = 0; i < s->ninputs; i++)
	{
		const MergeInput *in = &s->inputs[i];
		const ContactItem *item = displaced_item(in, field, key);
		MergeClaim *c;
		const MergeDecision *decision;
		bool		claimed = false;

		if (item == NULL || merge_is_excluded(s->rule, in))
			continue;
		c = merge_claim_init(s, i, 1);
		merge_claim_add(c, in, &in->record.cleared, item);
		c->bytes = merge_claim_bytes(c->items, c->nitems);
		c->displaced = true;
		for (int k = 0; k < nclaims; k++)
			claimed |= merge_competes(&s->claims[k]) && strview_cmp(s->claims[k].bytes, c->bytes) == 0;
		decision = settled_by(s, field, unit->lead, key, c);
		c->verdict = claimed || (decision && merge_decides(decision, c)) ? MV_LOST :
			decision ? MV_OVERRULED : MV_IN_REVIEW;
		open |= c->verdict == MV_IN_REVIEW;
		if (!claimed && decision)
			settled = decision;
		s->nclaims++;
	}
	conflict = conflict_on(result, field, member, key);
	if (open || (settled && conflict == NULL))
	{
		if (conflict == NULL)
		{
			int			all = s->nclaims;

			s->nclaims = nclaims;
			merge_add_conflict(s, field, member, key, MC_DISPLACED, NULL);
			s->nclaims = all;
			conflict = &result->conflicts[result->nconflicts - 1];
			conflict->decision_id = settled ? settled->id : 0;
			conflict->open = open;
		}
		else if (!conflict->open)
		{
			conflict->open = true;
			conflict->reason = MC_DISPLACED;
		}
		for (int i = nclaims; i < s->nclaims; i++)
		{
			MergeVerdict verdict = s->claims[i].verdict;

			merge_add_candidate(s, conflict, &s->claims[i]);
			s->claims[i].verdict = verdict;
		}
	}
	/* the others are explained already */
	for (int i = nclaims; i < s->nclaims && s->explain; i++)
		merge_explain_item(s, field, key, &s->claims[i], 0, i + 1, NULL);
}

/* Offer all of it, each cell once. */
void
merge_offer_displaced(MergeResolver *s)
{
	for (int i = 0; i < s->ninputs; i++)
	{
		const ContactValue *cleared = &s->inputs[i].record.cleared;

		for (int k = 0; k < cleared->nitems; k++)
		{
			const ContactItem *item = &cleared->items[k];
			bool		first = displaced_item(&s->inputs[i], item->field, item->key) != NULL;

			for (int j = 0; j < i && first; j++)
				first = displaced_item(&s->inputs[j], item->field, item->key) == NULL;
			if (first)
				offer(s, item->field, item->key);
		}
	}
}
