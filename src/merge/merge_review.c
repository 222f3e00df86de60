/*
 * merge_review.c
 *		Manual review: the established value, what a person decided, and what is
 *		still to be decided.
 */
#include "postgres.h"

#include "common/hashfn.h"

#include "merge/merge_claims.h"

typedef struct RunRef
{
	const MergeRun *run;
	int			input;
} RunRef;

static const MergeResolver *sorting_runs;

static int
run_cmp(const void *x, const void *y)
{
	const RunRef *a = x;
	const RunRef *b = y;

	if (a->run->at != b->run->at)
		return a->run->at < b->run->at ? -1 : 1;
	if (a->input != b->input)
		return merge_input_cmp(&sorting_runs->inputs[a->input], &sorting_runs->inputs[b->input]);
	/* of one record and stamp: in the order of their versions, as they lie */
	return (a->run > b->run) - (a->run < b->run);
}

/*
 * The established value of a disputed cell: at each version follow what is
 * unanimous, and keep it through disagreement.  Returns the index of a claim
 * that asserts it now, or that of the first in tie order.
 */
int
merge_established(MergeResolver *s, ContactField lead, StrView key)
{
	RunRef	   *refs;
	const MergeRun **now = palloc0(sizeof(MergeRun *) * s->ninputs);
	StrView		kept = {NULL, 0};
	int			n = 0;

	for (int i = 0; i < s->ninputs; i++)
		n += s->inputs[i].nruns;
	refs = palloc(sizeof(RunRef) * Max(n, 1));
	n = 0;
	for (int i = 0; i < s->ninputs; i++)
	{
		for (int k = 0; k < s->inputs[i].nruns; k++)
		{
			const MergeRun *run = &s->inputs[i].runs[k];

			if (run->field != lead || strview_cmp(run->key, key) != 0 || !s->inputs[i].record.alive ||
				(s->rule->only && merge_source_rank(s->rule, &s->inputs[i]) == s->rule->nsources))
				continue;
			refs[n].run = run;
			refs[n++].input = i;
		}
	}
	sorting_runs = s;
	qsort(refs, n, sizeof(RunRef), run_cmp);

	for (int i = 0; i < n;)
	{
		int64		at = refs[i].run->at;
		StrView		common = {NULL, 0};
		bool		unanimous = true;
		bool		any_complete = false;

		for (; i < n && refs[i].run->at == at; i++)
			now[refs[i].input] = refs[i].run->bytes.ptr ? refs[i].run : NULL;
		for (int k = 0; k < s->ninputs; k++)
			any_complete |= now[k] && now[k]->complete;
		for (int k = 0; k < s->ninputs; k++)
		{
			if (!now[k] || (any_complete && !now[k]->complete))
				continue;
			if (common.ptr == NULL)
				common = now[k]->bytes;
			unanimous &= strview_cmp(common, now[k]->bytes) == 0;
		}
		if (unanimous && common.ptr)
			kept = common;
	}

	for (int i = 0; i < s->nclaims && kept.ptr; i++)
		if (merge_competes(&s->claims[i]) && strview_cmp(s->claims[i].bytes, kept) == 0)
			return i;
	return 0;
}

const MergeDecision *
merge_decision_for(const MergeResolver *s, ContactField lead, StrView key)
{
	const MergeDecision *best = NULL;

	for (int i = 0; i < s->ndecisions; i++)
	{
		const MergeDecision *d = &s->decisions[i];

		if (merge_unit_of(d->field) != merge_unit_of(lead) || strview_cmp(d->key, key) != 0)
			continue;
		if (best == NULL || d->decided_at > best->decided_at ||
			(d->decided_at == best->decided_at && d->id > best->id))
			best = d;
	}
	return best;
}

/* Record a disputed cell; it is settled if the decision knew every candidate. */
void
merge_add_conflict(MergeResolver *s, ContactField lead, StrView key, const MergeDecision *decision)
{
	MergeResult *result = s->result;
	MergeConflict *conflict;
	uint64		all[2] = {0, 1};

	if (result->nconflicts == s->maxconflicts)
	{
		s->maxconflicts = Max(8, s->maxconflicts * 2);
		result->conflicts = result->conflicts ?
			repalloc(result->conflicts, sizeof(MergeConflict) * s->maxconflicts) :
			palloc(sizeof(MergeConflict) * s->maxconflicts);
	}
	conflict = &result->conflicts[result->nconflicts++];
	memset(conflict, 0, sizeof(*conflict));
	conflict->field = lead;
	conflict->key = key;
	conflict->decision_id = decision ? decision->id : 0;
	conflict->open = decision == NULL;
	conflict->candidates = palloc0(sizeof(MergeCandidate) * s->nclaims);
	conflict->claims = palloc0(sizeof(*conflict->claims) * s->nclaims);

	for (int i = 0; i < s->nclaims; i++)
	{
		MergeClaim	   *c = &s->claims[i];
		MergeCandidate *out = &conflict->candidates[conflict->ncandidates];
		uint64		h[2];
		bool		seen = false;

		if (!merge_competes(c))
			continue;
		c->verdict = MV_IN_REVIEW;
		out->input = c->input;
		out->field = lead;
		out->key = key;
		out->item = c->items[0];
		out->rank = conflict->ncandidates + 1;
		out->changed_at = c->changed_at;
		out->as_of = c->as_of;
		out->estimate = !c->witnessed;
		out->rule = s->rule;
		out->verdict = MV_IN_REVIEW;
		merge_claim_digest(s, c, out->digest);
		conflict->claims[conflict->ncandidates].nitems = c->nitems;
		conflict->claims[conflict->ncandidates++].items = c->items;

		for (int k = 0; decision && k < decision->nseen && !seen; k++)
			seen = memcmp(decision->seen[k], out->digest, MERGE_DIGEST_LEN) == 0;
		/* what it knew settles nothing once it was said anew */
		conflict->open |= !seen || c->changed_at > decision->decided_at;
		memcpy(h, out->digest, sizeof(h));
		all[0] = hash_combine64(all[0], h[0]);
		all[1] = hash_combine64(all[1], h[1]);
	}
	memcpy(conflict->digest, all, MERGE_DIGEST_LEN);
}

/* Is a claim what was decided? */
bool
merge_decides(const MergeDecision *decision, const MergeClaim *c)
{
	const ContactItem **items = palloc(sizeof(*items) * Max(decision->nitems, 1));
	int			n = decision->cleared ? 0 : decision->nitems;

	for (int i = 0; i < n; i++)
		items[i] = &decision->items[i];
	return strview_cmp(merge_claim_bytes(items, n), c->bytes) == 0;
}

/* Let a decision settle a cell. */
void
merge_decide(MergeResolver *s, const MergeDecision *decision)
{
	StrView		nobody = {"decision", 8};
	int			chosen = -1;

	for (int i = 0; i < s->nclaims; i++)
	{
		MergeClaim	   *c = &s->claims[i];
		bool		same = c->verdict != MV_WITHDRAWN && c->verdict != MV_EXCLUDED &&
			c->verdict != MV_INCOMPLETE && merge_decides(decision, c);

		/* of those that say the same, the one that was chosen */
		if (same && (chosen < 0 || (decision->chosen_source.ptr &&
									strview_cmp(s->inputs[c->input].source, decision->chosen_source) == 0 &&
									strview_cmp(s->inputs[s->claims[chosen].input].source, decision->chosen_source) != 0)))
			chosen = i;
		if (c->verdict != MV_WITHDRAWN)
			c->verdict = same ? MV_LOST : MV_OVERRULED;
	}
	if (chosen >= 0)
		s->claims[chosen].verdict = MV_WON;
	for (int k = 0; k < decision->nitems && !decision->cleared; k++)
		merge_emit(s, &decision->items[k],
			 decision->chosen_source.ptr ? decision->chosen_source : nobody,
			 decision->decided_at, decision->decided_at, CS_OVERRIDDEN);
}

/* ---- history ---- */

void
merge_history(const MergePolicy *policy, MergeObservation *obs, int nobs,
			  MergeSightings sightings, StrView source, MergeRun **runs, int *nruns)
{
	MergeObservation *prefix = palloc(sizeof(MergeObservation) * Max(nobs, 1));
	const MergeSightings unseen = {MERGE_TIME_MIN, MERGE_TIME_MIN};
	MergeRecord r;
	int			max = 16;
	StrView    *keys;
	int			nkeys = 0;

	merge_record_init(&r);
	*runs = palloc(sizeof(MergeRun) * max);
	*nruns = 0;
	qsort(obs, nobs, sizeof(MergeObservation),
		  (int (*) (const void *, const void *)) merge_observation_cmp);
	nobs = merge_drop_refuted(obs, nobs, sightings);

	/* every metadata key that was ever given: one that is gone again is withdrawn */
	for (int n = 0; n < nobs; n++)
		nkeys += obs[n].claims.value.nitems;
	keys = palloc(sizeof(StrView) * Max(nkeys, 1));
	nkeys = 0;
	for (int n = 0; n < nobs; n++)
		for (int k = 0; k < obs[n].claims.value.nitems; k++)
			if (obs[n].claims.value.items[k].field == CF_METADATA)
				keys[nkeys++] = obs[n].claims.value.items[k].key;
	nkeys = merge_unique_keys(keys, nkeys);

	/* the record as it was after each of its observations */
	for (int n = 1; n <= nobs; n++)
	{
		MergeInput	in = {0};
		MergeResolver	s = {0};
		MergeResult scratch = {0};
		MergeClaim		claim;

		if (n == nobs || !merge_fold_step(&r, &obs[n - 1], source))
		{
			memcpy(prefix, obs, sizeof(MergeObservation) * n);
			merge_fold(prefix, n, n == nobs ? sightings : unseen, source, &r);
		}
		in.source = source;
		in.record = r;
		s.policy = policy;
		s.inputs = &in;
		s.ninputs = 1;
		s.result = &scratch;
		s.claims = &claim;
		for (int u = 0; u < MU_COUNT + nkeys; u++)
		{
			StrView		key = u < MU_COUNT ? nokey : keys[u - MU_COUNT];
			MergeUnit	unit = u < MU_COUNT ? u : MU_METADATA;
			uint32		fields = 0;
			MergeRun   *run;

			s.rule = u < MU_COUNT ? &policy->rules[u] : merge_metadata_rule(policy, key);
			if (s.rule->kind != MR_MANUAL_REVIEW || (u < MU_COUNT && CF_IS_LIST(merge_lead_of[unit])))
				continue;
			for (int f = 0; f < CF_COUNT; f++)
				if (merge_unit_of(f) == unit)
					fields |= CF_BIT(f);
			merge_collect(&s, fields, key, merge_lead_of[unit]);
			if (*nruns == max)
				*runs = repalloc(*runs, sizeof(MergeRun) * (max *= 2));
			run = &(*runs)[(*nruns)++];
			run->field = merge_lead_of[unit];
			run->key = key;
			run->at = obs[n - 1].effective;
			run->complete = s.nclaims > 0 && merge_lead_filled(&s.claims[0], merge_lead_of[unit]);
			run->bytes = s.nclaims > 0 && s.claims[0].nitems > 0 ? s.claims[0].bytes : nokey;
		}
	}
	pfree(prefix);
}
