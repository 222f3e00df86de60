/*
 * merge_review.c
 *		Manual review: the established value, what a person decided, and what is
 *		still to be decided.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "port/pg_bitutils.h"

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

/* ---- decisions ---- */

const char *const merge_reason_names[] = {"candidates", "stale", "decisions", "split", "displaced"};

/*
 * A release ends the force of its target wherever one of the records is that it
 * names: after a split, on one side only.
 */
void
merge_mark_released(MergeDecision *decisions, int ndecisions)
{
	for (int i = 0; i < ndecisions; i++)
	{
		decisions[i].released = false;
		for (int k = 0; k < ndecisions && !decisions[i].released; k++)
			decisions[i].released = decisions[k].kind == MD_RELEASE && decisions[k].target == decisions[i].id;
	}
}

bool
merge_decided_later(const MergeDecision *a, const MergeDecision *b)
{
	if (a->decided_at != b->decided_at)
		return a->decided_at > b->decided_at;
	return a->id > b->id;
}

/*
 * Is it in force on this cell?  Where groups have changed since it was made, it
 * has to be about the lead of what is a group now.
 */
static bool
is_about(const MergeDecision *d, ContactField field, bool member, StrView key)
{
	if (d->kind == MD_RELEASE || d->released || d->member != member || strview_cmp(d->key, key) != 0)
		return false;
	if (d->member || member)
		return d->member && member && d->field == field;
	return (d->fields & CF_BIT(field)) != 0;
}

bool
merge_decision_cell(const MergePolicy *policy, StrView name, StrView element, MergeDecision *d)
{
	const MergeUnit *unit = merge_unit_named(policy, name);
	int			field = contact_field_lookup(name.ptr, name.len);

	d->key = strview(element.ptr, element.len); /* a cell without key, not with an empty one */
	d->group = field < 0;
	d->member = unit == NULL && field >= 0;
	d->fields = unit ? unit->fields : field >= 0 ? CF_BIT(field) : merge_default_group(name);
	/* of a group that is gone, or had other members, what was decided of it */
	for (int i = 0; i < d->nitems && d->group; i++)
		d->fields |= CF_BIT(d->items[i].field);
	if (d->fields == 0)
		return false;
	d->field = unit ? unit->lead : pg_rightmost_one_pos32(d->fields);
	return true;
}

/* The decision on a cell, so far as it is about it. */
const MergeDecision *
merge_decision_for(const MergeResolver *s, ContactField field, bool member, StrView key)
{
	const MergeUnit *unit = merge_unit_of(s->policy, field);
	const MergeDecision *best = NULL;
	MergeDecision *within;

	for (int i = 0; i < s->ndecisions; i++)
	{
		const MergeDecision *d = &s->decisions[i];

		if (is_about(d, field, member, key) && (best == NULL || merge_decided_later(d, best)))
			best = d;
	}
	if (best == NULL || (best->fields & ~unit->fields) == 0)
		return best;
	within = palloc(sizeof(MergeDecision));
	*within = *best;
	within->items = palloc(sizeof(ContactItem) * Max(best->nitems, 1));
	within->nitems = 0;
	for (int i = 0; i < best->nitems; i++)
		if (unit->fields & CF_BIT(best->items[i].field))
			within->items[within->nitems++] = best->items[i];
	return within;
}

const MergeDecision *
merge_member_decision(const MergeResolver *s, ContactField field)
{
	const MergeDecision *member = merge_decision_for(s, field, true, nokey);
	const MergeDecision *whole = member ? merge_decision_for(s, field, false, nokey) : NULL;

	return whole && !merge_is_parted(s, whole) && merge_decided_later(whole, member) ? NULL : member;
}

/* Was the earlier decision made on a contact that the later one knew? */
static bool
knew(const MergeDecision *later, const MergeDecision *earlier)
{
	for (const int64 *a = later->records; *a; a++)
		for (const int64 *b = earlier->records; *b; b++)
			if (*a == *b)
				return true;
	return false;
}

static StrView
decided_bytes(const MergeDecision *decision)
{
	const ContactItem **items = palloc(sizeof(*items) * Max(decision->nitems, 1));
	int			n = decision->cleared ? 0 : decision->nitems;

	for (int i = 0; i < n; i++)
		items[i] = &decision->items[i];
	return merge_claim_bytes(items, n);
}

static int
decision_cmp(const void *x, const void *y)
{
	const MergeDecision *a = *(const MergeDecision *const *) x;
	const MergeDecision *b = *(const MergeDecision *const *) y;

	return merge_decided_later(a, b) ? -1 : merge_decided_later(b, a);
}

/*
 * The decisions on a cell that no later one knew of, the latest first.  There is
 * more than one where contacts were merged that had each been decided about;
 * they matter if they say different things.
 */
static int
rival_decisions(const MergeResolver *s, ContactField field, bool member, StrView key,
				const MergeDecision *decision, const MergeDecision ***rivals)
{
	bool		differ = false;
	int			n = 0;

	/* what is past cannot be in anybody's way */
	if (decision == NULL || decision->of_list)
		return 0;

	*rivals = palloc(sizeof(MergeDecision *) * Max(s->ndecisions, 1));
	for (int i = 0; i < s->ndecisions; i++)
	{
		const MergeDecision *d = &s->decisions[i];
		bool		known = false;

		if (!is_about(d, field, member, key))
			continue;
		for (int k = 0; k < s->ndecisions && !known; k++)
			known = is_about(&s->decisions[k], field, member, key) &&
				merge_decided_later(&s->decisions[k], d) && knew(&s->decisions[k], d);
		if (known)
			continue;
		differ |= n > 0 && strview_cmp(decided_bytes(d), decided_bytes((*rivals)[0])) != 0;
		(*rivals)[n++] = d;
	}
	qsort(*rivals, n, sizeof(MergeDecision *), decision_cmp);
	return differ ? n : 0;
}

/* Is a claim what was decided? */
bool
merge_decides(const MergeDecision *decision, const MergeClaim *c)
{
	return strview_cmp(decided_bytes(decision), c->bytes) == 0;
}

/* Is it as the decision knew it?  What it knew was news again if it was said anew. */
static bool
was_seen(const MergeResolver *s, const MergeDecision *decision, const MergeClaim *c)
{
	uint8		digest[MERGE_DIGEST_LEN];
	bool		seen = false;

	merge_claim_digest(s, c, digest);
	for (int k = 0; k < decision->nseen && !seen; k++)
		seen = memcmp(decision->seen[k], digest, MERGE_DIGEST_LEN) == 0;
	return seen && c->changed_at <= decision->decided_at;
}

/* Does a source say something else than was decided, that the decision did not know? */
bool
merge_is_stale(const MergeResolver *s, const MergeDecision *decision, const MergeClaim *c)
{
	switch (c->verdict)
	{
		case MV_WITHDRAWN:
			/* that a source has no value is news only if it had one */
			return !decision->cleared && c->changed_at > decision->decided_at &&
				!(s->rule->only && c->rank == s->rule->nsources);
		case MV_EXCLUDED:
		case MV_INCOMPLETE:
			return false;
		default:
			return !merge_decides(decision, c) && !was_seen(s, decision, c);
	}
}

/* ---- conflicts ---- */

static MergeConflict *
new_conflict(MergeResolver *s, int maxcandidates)
{
	MergeResult *result = s->result;
	MergeConflict *conflict;

	if (result->nconflicts == s->maxconflicts)
	{
		s->maxconflicts = Max(8, s->maxconflicts * 2);
		result->conflicts = result->conflicts ?
			repalloc(result->conflicts, sizeof(MergeConflict) * s->maxconflicts) :
			palloc(sizeof(MergeConflict) * s->maxconflicts);
	}
	conflict = &result->conflicts[result->nconflicts++];
	memset(conflict, 0, sizeof(*conflict));
	conflict->candidates = palloc0(sizeof(MergeCandidate) * Max(maxcandidates, 1));
	conflict->claims = palloc0(sizeof(*conflict->claims) * Max(maxcandidates, 1));
	return conflict;
}

static MergeCandidate *
new_candidate(MergeResolver *s, MergeConflict *conflict, const ContactItem **items, int nitems)
{
	MergeCandidate *out = &conflict->candidates[conflict->ncandidates];

	conflict->claims[conflict->ncandidates].nitems = nitems;
	conflict->claims[conflict->ncandidates++].items = items;
	out->field = conflict->field;
	out->key = conflict->key;
	out->item = nitems > 0 ? items[0] : NULL;
	out->rank = conflict->ncandidates;
	out->rule = s->rule;
	out->verdict = MV_IN_REVIEW;
	return out;
}

static void
add_claim_candidate(MergeResolver *s, MergeConflict *conflict, MergeClaim *c)
{
	MergeCandidate *out = new_candidate(s, conflict, c->items, c->nitems);

	c->verdict = MV_IN_REVIEW;
	out->input = c->input;
	out->changed_at = c->changed_at;
	out->as_of = c->as_of;
	out->estimate = !c->witnessed;
	out->displaced = c->displaced;
	merge_claim_digest(s, c, out->digest);
}

static void
digest_candidates(MergeConflict *conflict)
{
	uint64		all[2] = {0, 1};

	for (int i = 0; i < conflict->ncandidates; i++)
	{
		uint64		h[2];

		memcpy(h, conflict->candidates[i].digest, sizeof(h));
		all[0] = hash_combine64(all[0], h[0]);
		all[1] = hash_combine64(all[1], h[1]);
	}
	memcpy(conflict->digest, all, MERGE_DIGEST_LEN);
}

static void
add_decision_candidate(MergeResolver *s, MergeConflict *conflict, const MergeDecision *d)
{
	int			n = d->cleared ? 0 : d->nitems;
	const ContactItem **items = palloc(sizeof(*items) * Max(n, 1));
	StrView		bytes = decided_bytes(d);
	MergeCandidate *out;
	uint64		h[2];

	for (int i = 0; i < n; i++)
		items[i] = &d->items[i];
	out = new_candidate(s, conflict, items, n);
	out->input = -1;
	out->decision_id = d->id;
	out->changed_at = out->as_of = d->decided_at;
	for (int k = 0; k < 2; k++)
		h[k] = hash_combine64(d->id, hash_bytes_extended((const unsigned char *) (bytes.ptr ? bytes.ptr : ""), bytes.len, k));
	memcpy(out->digest, h, MERGE_DIGEST_LEN);
}

/*
 * Was it decided about records of which some are another contact's now?  Then
 * nobody knows whom it was meant for, and it is in force on neither side: each
 * has what its records say, as it would without the decision.
 */
bool
merge_is_parted(const MergeResolver *s, const MergeDecision *d)
{
	for (const int64 *r = d->records; *r; r++)
	{
		bool		here = false;

		for (int i = 0; i < s->ninputs && !here; i++)
			here = s->inputs[i].record_id == *r;
		if (!here)
			return true;
	}
	return false;
}

/* Such a one is asked about where those that are left say something else. */
static bool
is_unattributed(const MergeResolver *s, const MergeDecision *d)
{
	bool		claimed = false;

	if (d->of_list || !merge_is_parted(s, d))
		return false;
	/* of a whole list, element by element is not how it was decided */
	if (CF_IS_LIST(d->field) && d->key.len == 0)
		return true;
	for (int i = 0; i < s->nclaims; i++)
	{
		if (!merge_competes(&s->claims[i]))
			continue;
		if (!merge_decides(d, &s->claims[i]))
			return true;
		claimed = true;
	}
	return !claimed && !d->cleared;
}

/*
 * Record a cell that a person has to look at, with the claims that compete for
 * it; it is settled if the decision knew every one of them.
 */
void
merge_add_conflict(MergeResolver *s, ContactField field, bool member, StrView key,
				   MergeReason reason, const MergeDecision *decision)
{
	const MergeDecision **rivals;
	int			nrivals = rival_decisions(s, field, member, key, decision, &rivals);
	bool		parted = decision && is_unattributed(s, decision);
	MergeConflict *conflict = new_conflict(s, nrivals + s->nclaims + 1);

	conflict->name = member ? strview_of(contact_field_names[field]) : merge_unit_of(s->policy, field)->name;
	conflict->field = field;
	conflict->member = member;
	conflict->key = key;
	conflict->decision_id = decision ? decision->id : 0;
	conflict->open = decision == NULL;

	for (int i = 0; i < nrivals; i++)
		add_decision_candidate(s, conflict, rivals[i]);
	if (parted && nrivals == 0)
		add_decision_candidate(s, conflict, decision);
	for (int i = 0; i < s->nclaims; i++)
	{
		MergeClaim	   *c = &s->claims[i];

		if (decision)
			conflict->open |= reason == MC_STALE ? merge_is_stale(s, decision, c) : merge_competes(c) && !was_seen(s, decision, c);
		if (!merge_competes(c))
			continue;
		add_claim_candidate(s, conflict, c);
	}
	conflict->reason = nrivals > 0 ? MC_DECISIONS : parted && !conflict->open ? MC_SPLIT : reason;
	conflict->open |= nrivals > 0 || parted;
	digest_candidates(conflict);
}

/* Add a claim to those that there are. */
void
merge_add_candidate(MergeResolver *s, MergeConflict *conflict, MergeClaim *c)
{
	int			n = conflict->ncandidates + 1;

	conflict->candidates = repalloc(conflict->candidates, sizeof(MergeCandidate) * n);
	conflict->claims = repalloc(conflict->claims, sizeof(*conflict->claims) * n);
	memset(&conflict->candidates[n - 1], 0, sizeof(MergeCandidate));
	add_claim_candidate(s, conflict, c);
	digest_candidates(conflict);
}

/* The removal of an element, or of a metadata key. */
static bool
is_tombstone(const MergeDecision *d)
{
	return d->kind == MD_OVERRIDE && d->cleared && d->key.len > 0 && !d->of_list;
}

bool
merge_has_fallen(const MergeResolver *s, const MergeDecision *decision)
{
	for (int i = 0; i < s->nclaims && is_tombstone(decision); i++)
		if (merge_competes(&s->claims[i]) && s->claims[i].nitems > 0 && s->claims[i].changed_at > decision->decided_at)
			return true;
	return false;
}

void
merge_question(MergeResolver *s, ContactField field, bool member, StrView key, const MergeDecision *decision)
{
	const MergeDecision **rivals;
	/* what settled a question about a clear was to stand only until something new is said */
	bool		reviewed = s->rule->kind != MR_MANUAL_REVIEW && merge_may_review(s->rule);
	bool		stale = false;

	/* a tombstone does not go stale: it falls */
	for (int i = 0; i < s->nclaims && (decision->kind == MD_OVERRIDE || reviewed) && !is_tombstone(decision) && !stale; i++)
		stale = merge_is_stale(s, decision, &s->claims[i]);
	if (stale || is_unattributed(s, decision) || rival_decisions(s, field, member, key, decision, &rivals) > 0)
		merge_add_conflict(s, field, member, key, MC_STALE, decision);
}

/* ---- settling ---- */

/* What a decision makes of the claims on its cell. */
void
merge_overrule(MergeResolver *s, const MergeDecision *decision)
{
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
}

/* Let a decision settle a cell. */
void
merge_decide(MergeResolver *s, const MergeDecision *decision)
{
	StrView		nobody = {"decision", 8};

	merge_overrule(s, decision);
	for (int k = 0; k < decision->nitems && !decision->cleared; k++)
		merge_emit(s, &decision->items[k],
			 decision->chosen_source.ptr ? decision->chosen_source : nobody,
			 decision->decided_at, decision->decided_at, CS_OVERRIDDEN);
}

void
merge_seen(const MergePolicy *policy, MergeInput *inputs, int ninputs, const MergeDecision *cell,
		   uint8 (**seen)[MERGE_DIGEST_LEN], int *nseen)
{
	const MergeUnit *unit = merge_unit_of(policy, cell->field);
	MergeResolver s = {0};
	StrView    *keys = (StrView *) &cell->key;
	int			nkeys = 1;
	uint32		fields = cell->member ? CF_BIT(cell->field) : unit->fields;

	s.policy = policy;
	s.inputs = inputs;
	s.ninputs = ninputs;
	s.rule = cell->field == CF_METADATA && cell->key.len > 0 ? merge_metadata_rule(policy, cell->key) : &unit->rule;
	s.claims = palloc(sizeof(MergeClaim) * (ninputs + 1));
	/* a whole list was seen in each of its elements */
	if (CF_IS_LIST(cell->field) && cell->key.len == 0)
		nkeys = merge_list_keys(&s, cell->field, &keys);
	*seen = palloc(MERGE_DIGEST_LEN * Max(nkeys * ninputs, 1));
	*nseen = 0;
	for (int k = 0; k < nkeys; k++)
	{
		merge_collect(&s, fields, keys[k], cell->field);
		for (int i = 0; i < s.nclaims; i++)
			if (s.claims[i].verdict != MV_WITHDRAWN)
				merge_claim_digest(&s, &s.claims[i], (*seen)[(*nseen)++]);
	}
}

/* ---- history ---- */

void
merge_history(const MergePolicy *policy, MergeObservation *obs, int nobs,
			  MergeSightings sightings, StrView source, MergeRun **runs, int *nruns)
{
	MergeObservation *prefix = palloc(sizeof(MergeObservation) * Max(nobs, 1));
	const MergeSightings unseen = {MERGE_TIME_MIN, MERGE_TIME_MIN};
	const MergeBase *base;
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
	base = nobs > 0 && obs[0].kind == MK_BASE ? obs[0].base : NULL;
	keys = palloc(sizeof(StrView) * Max(nkeys + (base ? base->nruns : 0), 1));
	nkeys = 0;
	for (int n = 0; base && n < base->nruns; n++)
		if (base->runs[n].field == CF_METADATA)
			keys[nkeys++] = base->runs[n].key;
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
		in.record.state = merge_own_state(&r.state);
		s.policy = policy;
		s.inputs = &in;
		s.ninputs = 1;
		s.result = &scratch;
		s.claims = &claim;
		for (int u = 0; u < policy->nunits + nkeys; u++)
		{
			StrView		key = u < policy->nunits ? nokey : keys[u - policy->nunits];
			const MergeUnit *unit = u < policy->nunits ? &policy->units[u] : merge_unit_of(policy, CF_METADATA);
			MergeRule	rule;
			MergeRun   *run;
			bool		reviewed = false;
			int			known;

			s.rule = u < policy->nunits ? &unit->rule : merge_metadata_rule(policy, key);
			if (s.rule->kind != MR_MANUAL_REVIEW || (u < policy->nunits && CF_IS_LIST(unit->lead)))
				continue;
			/* a base knows how it came to be, where the cell was under review then */
			known = n == 1 && base ? base->nruns : 0;
			for (int k = 0; k < known; k++)
			{
				const MergeRun *past = &base->runs[k];

				if (past->field != unit->lead || past->fields != unit->fields || strview_cmp(past->key, key) != 0)
					continue;
				if (*nruns == max)
					*runs = repalloc(*runs, sizeof(MergeRun) * (max *= 2));
				(*runs)[(*nruns)++] = *past;
				reviewed = true;
			}
			if (reviewed)
				continue;
			/* what was established does not depend on what a clear means today */
			rule = *s.rule;
			rule.clear = ML_WITHDRAW;
			rule.nclears = 0;
			s.rule = &rule;
			merge_collect(&s, unit->fields, key, unit->lead);
			if (*nruns == max)
				*runs = repalloc(*runs, sizeof(MergeRun) * (max *= 2));
			run = &(*runs)[(*nruns)++];
			run->field = unit->lead;
			run->fields = unit->fields;
			run->key = key;
			run->at = obs[n - 1].effective;
			run->complete = s.nclaims > 0 && merge_lead_filled(&s.claims[0], unit->lead);
			run->bytes = s.nclaims > 0 && s.claims[0].nitems > 0 ? s.claims[0].bytes : nokey;
		}
	}
	pfree(prefix);
}
