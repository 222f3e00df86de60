/*
 * merge_resolve.c
 *		The states of a contact's records, resolved into the contact.
 *
 * Every cell is decided among claims, put in the total order of the cell's rule,
 * so that neither the order of the inputs nor the moment of asking can matter.
 */
#include "postgres.h"

#include "merge/merge_claims.h"

/*
 * Let a claim win a cell: its items, and what agreeing claims add to a group.  What
 * is disputed adds nothing; where the question is about a clear or a decision, the
 * claims do as without it.
 */
static void
take(MergeResolver *s, int winner, bool disputed)
{
	const ContactItem *have[CF_COUNT] = {NULL};
	MergeClaim *w = &s->claims[winner];

	w->verdict = MV_WON;
	for (int k = 0; k < w->nitems; k++)
	{
		have[w->items[k]->field] = w->items[k];
		merge_emit_claim_item(s, w, k);
	}
	/* where there is to be no value, there are no gaps */
	for (int i = 0; i < s->nclaims && w->nitems > 0; i++)
	{
		MergeClaim	   *c = &s->claims[i];
		bool		agrees = c->verdict == MV_LOST || c->verdict == MV_INCOMPLETE ||
			(c->verdict == MV_IN_REVIEW && !disputed);

		for (int k = 0; k < c->nitems && agrees; k++)
			agrees = !have[c->items[k]->field] ||
				contact_item_same(have[c->items[k]->field], c->items[k]);
		for (int k = 0; k < c->nitems && agrees; k++)
		{
			if (have[c->items[k]->field])
				continue;
			have[c->items[k]->field] = c->items[k];
			merge_emit_claim_item(s, c, k);
		}
	}
}

/*
 * Collect the claims on a cell.  A clear that is to be reviewed does not count, but
 * where it would win if it did, the claim that there is no value is added to the
 * others, behind them: true then.
 */
static bool
collect_cell(MergeResolver *s, uint32 fields, StrView key, ContactField lead)
{
	MergeClaim	clear;

	if (s->rule->kind == MR_MANUAL_REVIEW ||
		!merge_collect_as(s, fields, key, lead, ML_AUTHORITATIVE) ||
		s->nclaims == 0 || !merge_competes(&s->claims[0]) || s->claims[0].nitems > 0 ||
		merge_clear_of(s->rule, &s->inputs[s->claims[0].input]) != ML_REVIEW)
	{
		merge_collect(s, fields, key, lead);
		return false;
	}
	clear = s->claims[0];
	merge_collect(s, fields, key, lead);
	/* nothing to be cleared */
	if (s->nclaims == 0 || !merge_competes(&s->claims[0]) || s->claims[0].nitems == 0)
		return false;
	s->claims[s->nclaims++] = clear;
	return true;
}

/* A scalar, a group or a metadata key. */
static void
resolve_cell(MergeResolver *s, uint32 fields, StrView key, ContactField lead, const MergeRule *rule)
{
	const MergeDecision *decision;
	bool		asked;
	bool		parted;
	int			winner = 0;
	int			distinct;

	s->rule = rule;
	asked = collect_cell(s, fields, key, lead);
	decision = merge_decision_for(s, lead, false, key);
	if (decision && merge_has_fallen(s, decision))
		decision = NULL;
	parted = decision && merge_is_parted(s, decision);
	distinct = merge_count_distinct(s);
	s->result->disagreements[rule->kind] += distinct > 1;

	/* a decision keeps its value, but not quietly once all say something else */
	if (rule->kind == MR_MANUAL_REVIEW && distinct == 1 && decision && !merge_decides(decision, &s->claims[0]))
		merge_add_conflict(s, lead, false, key, MC_CANDIDATES, decision);
	else if (rule->kind == MR_MANUAL_REVIEW && distinct > 1)
	{
		bool		history = false;

		for (int i = 0; i < s->ninputs; i++)
			history |= s->inputs[i].nruns > 0;
		if (!history && (decision == NULL || parted))
			s->result->needs_history = true;
		winner = merge_established(s, lead, key);
		merge_add_conflict(s, lead, false, key, MC_CANDIDATES, decision);
	}
	else if (asked)
		merge_add_conflict(s, lead, false, key, MC_CANDIDATES, decision);
	else if (decision)
		merge_question(s, lead, false, key, decision);

	if (parted)
		decision = NULL;
	if (decision)
		merge_decide(s, decision);
	else if (distinct > 0)
		take(s, winner, rule->kind == MR_MANUAL_REVIEW && distinct > 1);
	merge_explain_claims(s, lead, key, decision);
}

/* What was decided about a single member stands in for what the group has there. */
static void
resolve_members(MergeResolver *s, uint32 fields, int from)
{
	ContactValue *v = &s->result->contact;

	for (int f = 0; f < CF_COUNT; f++)
	{
		const MergeDecision *decision = fields & CF_BIT(f) ? merge_member_decision(s, f) : NULL;

		if (decision == NULL)
			continue;
		if (merge_is_parted(s, decision))
		{
			merge_collect(s, CF_BIT(f), nokey, f);
			merge_question(s, f, true, nokey, decision);
			continue;
		}
		for (int i = from; i < v->nitems; i++)
			if (v->items[i].field == f)
				v->items[i--] = v->items[--v->nitems];
		merge_collect(s, CF_BIT(f), nokey, f);
		merge_question(s, f, true, nokey, decision);
		merge_decide(s, decision);
		merge_explain_claims(s, f, nokey, decision);
	}
}

const MergeRule *
merge_metadata_rule(const MergePolicy *p, StrView key)
{
	for (int i = 0; i < p->nmetadata; i++)
		if (strview_cmp(p->metadata[i].key, key) == 0)
			return &p->metadata[i].rule;
	return &merge_unit_of(p, CF_METADATA)->rule;
}

static void
resolve_metadata(MergeResolver *s)
{
	StrView    *keys;
	int			nkeys = merge_list_keys(s, CF_METADATA, &keys);

	if (s->ndecisions > 0)
		nkeys = merge_decided_keys(s, CF_METADATA, NULL, &keys, nkeys);
	/* by default each key by its latest change: the union of all keys */
	for (int k = 0; k < nkeys; k++)
		resolve_cell(s, CF_BIT(CF_METADATA), keys[k], CF_METADATA, merge_metadata_rule(s->policy, keys[k]));
	pfree(keys);
}

void
merge_resolve(const MergePolicy *policy, MergeInput *inputs, int ninputs,
			  MergeDecision *decisions, int ndecisions, bool explain, MergeResult *result)
{
	MergeResolver	s = {0};

	memset(result, 0, sizeof(*result));
	result->naming_input = -1;
	s.policy = policy;
	s.inputs = inputs = merge_settle_derived(inputs, ninputs);
	s.ninputs = ninputs;
	s.decisions = decisions;
	s.ndecisions = ndecisions;
	s.explain = explain;
	s.result = result;
	s.maxitems = 32;
	result->contact.items = palloc(sizeof(ContactItem) * s.maxitems);
	result->contact.stamps = palloc(sizeof(ContactStamp) * s.maxitems);
	s.claims = palloc(sizeof(MergeClaim) * (2 * ninputs + 1));

	merge_mark_released(decisions, ndecisions);
	for (int i = 0; i < ninputs; i++)
	{
		if (!inputs[i].record.alive)
			continue;
		result->live = true;
		if (result->naming_input < 0 || merge_input_cmp(&inputs[i], &inputs[result->naming_input]) < 0)
			result->naming_input = i;
	}

	for (int k = 0; k < policy->nunits; k++)
	{
		const MergeUnit *u = &policy->units[k];
		int			from = result->contact.nitems;

		if (u->lead == CF_METADATA)
			resolve_metadata(&s);
		else if (CF_IS_LIST(u->lead))
			merge_resolve_list(&s, u);
		else
		{
			resolve_cell(&s, u->fields, nokey, u->lead, &u->rule);
			for (int i = 0; (u->fields & CF_BIT(CF_LAST_NAME)) && i < s.nclaims; i++)
				if (s.claims[i].verdict == MV_WON && s.claims[i].nitems > 0)
					result->naming_input = s.claims[i].input;
			resolve_members(&s, u->fields, from);
		}
	}
	merge_offer_displaced(&s);
	/* nobody is asked about one who is gone */
	if (!result->live)
		result->nconflicts = 0;
	contact_sort(&result->contact);
}
