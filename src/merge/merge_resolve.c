/*
 * merge_resolve.c
 *		The states of a contact's records, resolved into the contact.
 *
 * Every cell is decided among claims: what one record says of it.  A claim on
 * a group is the whole group, on a list one element.  Claims are put in the
 * total order of the cell's rule, which ends in the record's own key and the
 * value's bytes, so that neither the order of the inputs nor the moment of
 * asking can matter.
 */
#include "postgres.h"

#include "common/hashfn.h"

#include "merge/merge.h"

/* What one record says of one cell. */
typedef struct Claim
{
	int			input;
	int			nitems;
	const ContactItem **items;	/* none: withdrawn */
	bool		complete;		/* fills the group's lead member */
	bool		witnessed;
	int64		changed_at;
	int64		as_of;
	int64		compare_at;		/* what recency is judged by */
	int			rank;			/* of its source in the rule */
	StrView		bytes;
	MergeVerdict verdict;
} Claim;

typedef struct Resolver
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
	Claim	   *claims;
	int			nclaims;
	/* for the comparator */
	const MergeRule *rule;
} Resolver;

/* qsort has no argument to pass this through, and sorting does not nest */
static const Resolver *sorting;

static const ContactField lead_of[MU_COUNT] = {
	[MU_NAME] = CF_LAST_NAME,[MU_JOB] = CF_COMPANY,[MU_NICKNAME] = CF_NICKNAME,
	[MU_BIRTHDAY] = CF_BIRTHDAY,[MU_NOTE] = CF_NOTE,[MU_PHOTO] = CF_PHOTO,
	[MU_EMAILS] = CF_EMAILS,[MU_PHONES] = CF_PHONES,[MU_ADDRESSES] = CF_ADDRESSES,
	[MU_URLS] = CF_URLS,[MU_TAGS] = CF_TAGS,[MU_METADATA] = CF_METADATA
};

static const StrView nokey = {NULL, 0};

/* A source's place in a rule's list, by name before by class; 0 is best. */
static int
source_rank(const MergeRule *rule, const MergeInput *in)
{
	for (int i = 0; i < rule->nsources; i++)
		if (strview_cmp(rule->sources[i], in->source) == 0)
			return i;
	for (int i = 0; i < rule->nsources; i++)
		if (in->source_class.len > 0 && strview_cmp(rule->sources[i], in->source_class) == 0)
			return i;
	return rule->nsources;
}

static int
input_cmp(const MergeInput *a, const MergeInput *b)
{
	int			r = strview_cmp(a->source, b->source);

	return r ? r : strview_cmp(a->source_id, b->source_id);
}

/* Best first. */
static int
claim_cmp(const void *x, const void *y)
{
	const Claim *a = x;
	const Claim *b = y;
	const Resolver *s = sorting;
	int			r;

	if (a->complete != b->complete)
		return a->complete ? -1 : 1;
	if (s->rule->kind == MR_SOURCE_PRIORITY && a->rank != b->rank)
		return a->rank - b->rank;
	if (a->compare_at != b->compare_at)
		return a->compare_at > b->compare_at ? -1 : 1;
	if (a->rank != b->rank)
		return a->rank - b->rank;
	if ((r = input_cmp(&s->inputs[a->input], &s->inputs[b->input])) != 0)
		return r;
	return strview_cmp(a->bytes, b->bytes);
}

/* The content of a claim as bytes: of all its items, without primary flags. */
static StrView
claim_bytes(const ContactItem **items, int nitems)
{
	StrView		result = {NULL, 0};
	char	   *buf;

	for (int i = 0; i < nitems; i++)
	{
		ContactItem item = *items[i];
		StrView		bytes;

		item.flags &= ~CI_PRIMARY;
		bytes = contact_item_bytes(&item);
		if (nitems == 1)
			return bytes;
		buf = palloc(result.len + bytes.len);
		memcpy(buf, result.ptr ? result.ptr : "", result.len);
		memcpy(buf + result.len, bytes.ptr, bytes.len);
		result.ptr = buf;
		result.len += bytes.len;
	}
	return result;
}

/* Names what a decision has seen: who claimed what, and since when. */
static void
claim_digest(const Resolver *s, const Claim *c, uint8 *digest)
{
	const MergeInput *in = &s->inputs[c->input];
	StrView		parts[3] = {in->source, in->source_id, c->bytes};
	uint64		h[2] = {(uint64) c->changed_at, ~(uint64) c->changed_at};

	for (int i = 0; i < 3; i++)
		for (int k = 0; k < 2; k++)
			h[k] = hash_combine64(h[k], hash_bytes_extended((const unsigned char *) (parts[i].ptr ? parts[i].ptr : ""),
															parts[i].len, h[k] + i));
	memcpy(digest, h, MERGE_DIGEST_LEN);
}

/* ---- output ---- */

/* Add an item to the contact, stamped by its record or by a decision. */
static void
emit(Resolver *s, const ContactItem *item, StrView source, int64 as_of, int64 changed_at, uint8 flags)
{
	ContactValue *v = &s->result->contact;

	if (v->nitems == s->maxitems)
	{
		s->maxitems *= 2;
		v->items = repalloc(v->items, sizeof(ContactItem) * s->maxitems);
		v->stamps = repalloc(v->stamps, sizeof(ContactStamp) * s->maxitems);
	}
	v->items[v->nitems] = *item;
	v->items[v->nitems++].stamp = v->nstamps;
	v->stamps[v->nstamps].source = source;
	v->stamps[v->nstamps].as_of = as_of;
	v->stamps[v->nstamps].changed_at = changed_at;
	v->stamps[v->nstamps++].flags = flags;
}

static void
emit_claim_item(Resolver *s, const Claim *c, const ContactItem *item)
{
	const MergeRecord *r = &s->inputs[c->input].record;
	const ContactStamp *stamp = &r->state.stamps[item->stamp];

	emit(s, item, s->inputs[c->input].source, stamp->as_of,
		 merge_changed_at(r, stamp), stamp->flags);
}

static MergeCandidate *
add_candidate(Resolver *s, ContactField field, StrView key)
{
	MergeResult *result = s->result;
	MergeCandidate *out;

	if (result->ncandidates == s->maxcandidates)
	{
		s->maxcandidates = Max(64, s->maxcandidates * 2);
		result->candidates = result->candidates ?
			repalloc(result->candidates, sizeof(MergeCandidate) * s->maxcandidates) :
			palloc(sizeof(MergeCandidate) * s->maxcandidates);
	}
	out = &result->candidates[result->ncandidates++];
	memset(out, 0, sizeof(*out));
	out->field = field;
	out->key = key;
	out->rule = s->rule;
	return out;
}

/* A decided value that nobody claims stands before the claims. */
static void
explain_decision(Resolver *s, ContactField field, StrView key, const MergeDecision *decision)
{
	int			n = decision->cleared ? 0 : decision->nitems;

	for (int k = 0; k < Max(n, 1); k++)
	{
		MergeCandidate *out = add_candidate(s, n ? decision->items[k].field : field, key);

		out->input = -1;
		out->item = n ? &decision->items[k] : NULL;
		out->rank = 1;
		out->changed_at = out->as_of = decision->decided_at;
		out->verdict = MV_WON;
		out->decision_id = decision->id;
	}
}

static void
explain_claims(Resolver *s, ContactField field, StrView key, const MergeDecision *decision)
{
	bool		claimed = decision == NULL;

	for (int i = 0; i < s->nclaims; i++)
		claimed |= s->claims[i].verdict == MV_WON;
	if (s->explain && !claimed)
		explain_decision(s, field, key, decision);
	for (int i = 0; s->explain && i < s->nclaims; i++)
	{
		const Claim *c = &s->claims[i];
		int			n = Max(c->nitems, 1);

		for (int k = 0; k < n; k++)
		{
			MergeCandidate *out = add_candidate(s, c->nitems ? c->items[k]->field : field, key);

			out->input = c->input;
			out->item = c->nitems ? c->items[k] : NULL;
			out->rank = i + 1 + !claimed;
			out->changed_at = c->changed_at;
			out->as_of = c->as_of;
			out->estimate = !c->witnessed;
			out->verdict = c->verdict;
			out->decision_id = decision ? decision->id : 0;
			claim_digest(s, c, out->digest);
		}
	}
}

/* ---- claims ---- */

static int64
last_modification(const MergeRecord *r)
{
	return r->modified != MERGE_TIME_MIN ? r->modified : r->version;
}

/* Collect what every record says of a cell: the fields of a mask, or one key. */
static void
collect(Resolver *s, uint32 fields, StrView key, ContactField lead)
{
	bool		any_complete = false;
	bool		any_witnessed[2] = {false, false};

	s->nclaims = 0;
	for (int i = 0; i < s->ninputs; i++)
	{
		const MergeInput *in = &s->inputs[i];
		const ContactValue *state = &in->record.state;
		Claim	   *c = &s->claims[s->nclaims];
		bool		cleared = false;

		memset(c, 0, sizeof(*c));
		c->changed_at = c->as_of = MERGE_TIME_MIN;
		c->items = palloc(sizeof(*c->items) * CF_COUNT);
		for (int f = 0; f < CF_COUNT; f++)
		{
			int			at = fields & CF_BIT(f) ? contact_find(state, f, key) : -1;
			const ContactStamp *stamp;

			if (at < 0 || !in->record.alive)
				continue;
			stamp = &state->stamps[state->items[at].stamp];
			if (state->items[at].flags & CI_TOMBSTONE)
			{
				cleared |= f == lead;
				if (c->nitems == 0)
				{
					c->as_of = Max(c->as_of, stamp->as_of);
					c->changed_at = Max(c->changed_at, merge_changed_at(&in->record, stamp));
				}
				continue;
			}
			if (c->nitems == 0)
				c->as_of = c->changed_at = MERGE_TIME_MIN;
			c->items[c->nitems++] = &state->items[at];
			c->complete |= f == lead;
			c->witnessed |= !(stamp->flags & CS_ESTIMATE);
			c->as_of = Max(c->as_of, stamp->as_of);
			c->changed_at = Max(c->changed_at, merge_changed_at(&in->record, stamp));
		}
		if (c->nitems == 0 && !cleared)
			continue;
		c->input = i;
		c->rank = source_rank(s->rule, in);
		c->bytes = claim_bytes(c->items, c->nitems);
		c->verdict = c->nitems == 0 ? MV_WITHDRAWN :
			s->rule->only && c->rank == s->rule->nsources ? MV_EXCLUDED : MV_LOST;
		s->nclaims++;
		if (c->verdict == MV_LOST)
			any_complete |= c->complete;
	}
	for (int i = 0; i < s->nclaims; i++)
	{
		Claim	   *c = &s->claims[i];

		if (c->verdict == MV_LOST && any_complete && !c->complete)
			c->verdict = MV_INCOMPLETE;
		if (c->verdict == MV_LOST || c->verdict == MV_INCOMPLETE)
			any_witnessed[c->verdict == MV_INCOMPLETE] |= c->witnessed;
	}

	/*
	 * Recency: a first sight counts as its estimate, but where nothing was
	 * witnessed at all the records' own last modification is the best there is.
	 */
	for (int i = 0; i < s->nclaims; i++)
	{
		Claim	   *c = &s->claims[i];

		c->compare_at = any_witnessed[c->verdict == MV_INCOMPLETE] ? c->changed_at :
			last_modification(&s->inputs[c->input].record);
		/* what does not compete goes behind what does */
		c->complete = c->verdict == MV_LOST;
	}
	sorting = s;
	qsort(s->claims, s->nclaims, sizeof(Claim), claim_cmp);
}

static bool
competes(const Claim *c)
{
	return c->verdict == MV_LOST;
}

/* Does it fill the group's lead member? */
static bool
lead_filled(const Claim *c, ContactField lead)
{
	for (int i = 0; i < c->nitems; i++)
		if (c->items[i]->field == lead)
			return true;
	return false;
}

/* The claims that compete, counted by distinct content. */
static int
count_distinct(const Resolver *s)
{
	int			n = 0;

	for (int i = 0; i < s->nclaims && competes(&s->claims[i]); i++)
	{
		int			j;

		for (j = 0; j < i && strview_cmp(s->claims[i].bytes, s->claims[j].bytes) != 0; j++)
			;
		n += j == i;
	}
	return n;
}

/* Let a claim win a cell: its items, and what agreeing claims add to a group. */
static void
take(Resolver *s, int winner)
{
	const ContactItem *have[CF_COUNT] = {NULL};
	Claim	   *w = &s->claims[winner];

	w->verdict = MV_WON;
	for (int k = 0; k < w->nitems; k++)
	{
		have[w->items[k]->field] = w->items[k];
		emit_claim_item(s, w, w->items[k]);
	}
	for (int i = 0; i < s->nclaims; i++)
	{
		Claim	   *c = &s->claims[i];
		bool		agrees = c->verdict == MV_LOST || c->verdict == MV_INCOMPLETE;

		for (int k = 0; k < c->nitems && agrees; k++)
			agrees = !have[c->items[k]->field] ||
				contact_item_same(have[c->items[k]->field], c->items[k]);
		for (int k = 0; k < c->nitems && agrees; k++)
		{
			if (have[c->items[k]->field])
				continue;
			have[c->items[k]->field] = c->items[k];
			emit_claim_item(s, c, c->items[k]);
		}
	}
}

/* ---- manual review ---- */

typedef struct RunRef
{
	const MergeRun *run;
	int			input;
} RunRef;

static const Resolver *sorting_runs;

static int
run_cmp(const void *x, const void *y)
{
	const RunRef *a = x;
	const RunRef *b = y;

	if (a->run->at != b->run->at)
		return a->run->at < b->run->at ? -1 : 1;
	if (a->input != b->input)
		return input_cmp(&sorting_runs->inputs[a->input], &sorting_runs->inputs[b->input]);
	/* of one record and stamp: in the order of their versions, as they lie */
	return (a->run > b->run) - (a->run < b->run);
}

/*
 * The established value of a disputed cell: at each version follow what is
 * unanimous, and keep it through disagreement.  Returns the index of a claim
 * that asserts it now, or that of the first in tie order.
 */
static int
established(Resolver *s, ContactField lead, StrView key)
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
				(s->rule->only && source_rank(s->rule, &s->inputs[i]) == s->rule->nsources))
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
		if (competes(&s->claims[i]) && strview_cmp(s->claims[i].bytes, kept) == 0)
			return i;
	return 0;
}

static const MergeDecision *
decision_for(const Resolver *s, ContactField lead, StrView key)
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
static void
add_conflict(Resolver *s, ContactField lead, StrView key, const MergeDecision *decision)
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
		Claim	   *c = &s->claims[i];
		MergeCandidate *out = &conflict->candidates[conflict->ncandidates];
		uint64		h[2];
		bool		seen = false;

		if (!competes(c))
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
		claim_digest(s, c, out->digest);
		conflict->claims[conflict->ncandidates].nitems = c->nitems;
		conflict->claims[conflict->ncandidates++].items = c->items;

		for (int k = 0; decision && k < decision->nseen && !seen; k++)
			seen = memcmp(decision->seen[k], out->digest, MERGE_DIGEST_LEN) == 0;
		conflict->open |= !seen;
		memcpy(h, out->digest, sizeof(h));
		all[0] = hash_combine64(all[0], h[0]);
		all[1] = hash_combine64(all[1], h[1]);
	}
	memcpy(conflict->digest, all, MERGE_DIGEST_LEN);
}

/* Is a claim what was decided? */
static bool
decides(const MergeDecision *decision, const Claim *c)
{
	const ContactItem **items = palloc(sizeof(*items) * Max(decision->nitems, 1));
	int			n = decision->cleared ? 0 : decision->nitems;

	for (int i = 0; i < n; i++)
		items[i] = &decision->items[i];
	return strview_cmp(claim_bytes(items, n), c->bytes) == 0;
}

/* Let a decision settle a cell. */
static void
decide(Resolver *s, const MergeDecision *decision)
{
	StrView		nobody = {"decision", 8};
	int			chosen = -1;

	for (int i = 0; i < s->nclaims; i++)
	{
		Claim	   *c = &s->claims[i];
		bool		same = c->verdict != MV_WITHDRAWN && c->verdict != MV_EXCLUDED &&
			c->verdict != MV_INCOMPLETE && decides(decision, c);

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
		emit(s, &decision->items[k],
			 decision->chosen_source.ptr ? decision->chosen_source : nobody,
			 decision->decided_at, decision->decided_at, CS_OVERRIDDEN);
}

/* ---- cells ---- */

/* A scalar, a group or a metadata key. */
static void
resolve_cell(Resolver *s, uint32 fields, StrView key, ContactField lead, const MergeRule *rule)
{
	const MergeDecision *decision;
	int			winner = 0;
	int			distinct;

	s->rule = rule;
	collect(s, fields, key, lead);
	decision = decision_for(s, lead, key);
	distinct = count_distinct(s);

	/* a decision keeps its value, but not quietly once all say something else */
	if (rule->kind == MR_MANUAL_REVIEW && distinct == 1 && decision && !decides(decision, &s->claims[0]))
		add_conflict(s, lead, key, decision);
	else if (rule->kind == MR_MANUAL_REVIEW && distinct > 1)
	{
		bool		history = false;

		for (int i = 0; i < s->ninputs; i++)
			history |= s->inputs[i].nruns > 0;
		if (!history && decision == NULL)
			s->result->needs_history = true;
		winner = established(s, lead, key);
		add_conflict(s, lead, key, decision);
	}

	if (decision)
		decide(s, decision);
	else if (distinct > 0)
		take(s, winner);
	explain_claims(s, lead, key, decision);
}

/* Order in which a list that is taken whole is chosen: by its latest change. */
static int
best_list(Resolver *s, ContactField field)
{
	int			best = -1;
	int			best_rank = 0;
	int64		best_at = 0;
	bool		any_witnessed = false;
	bool	   *competes = palloc0(sizeof(bool) * s->ninputs);
	int64	   *changed_at = palloc(sizeof(int64) * s->ninputs);

	for (int i = 0; i < s->ninputs; i++)
	{
		const MergeInput *in = &s->inputs[i];
		bool		witnessed = false;

		changed_at[i] = MERGE_TIME_MIN;
		if (!in->record.alive ||
			(s->rule->only && source_rank(s->rule, in) == s->rule->nsources))
			continue;
		for (int k = 0; k < in->record.state.nitems; k++)
		{
			const ContactItem *item = &in->record.state.items[k];
			const ContactStamp *stamp = &in->record.state.stamps[item->stamp];

			/* that the list was covered is no change */
			if (item->field != field || item->key.len == 0)
				continue;
			competes[i] |= !(item->flags & CI_TOMBSTONE);
			witnessed |= !(stamp->flags & CS_ESTIMATE);
			changed_at[i] = Max(changed_at[i], merge_changed_at(&in->record, stamp));
		}
		any_witnessed |= witnessed && competes[i];
	}
	for (int i = 0; i < s->ninputs; i++)
	{
		const MergeInput *in = &s->inputs[i];
		int			rank = source_rank(s->rule, in);
		/* recency as in collect() */
		int64		at = any_witnessed ? changed_at[i] : last_modification(&in->record);

		if (!competes[i])
			continue;
		if (best >= 0)
		{
			if (s->rule->kind == MR_SOURCE_PRIORITY && rank != best_rank)
			{
				if (rank > best_rank)
					continue;
			}
			else if (at != best_at)
			{
				if (at < best_at)
					continue;
			}
			else if (rank != best_rank)
			{
				if (rank > best_rank)
					continue;
			}
			else if (input_cmp(in, &s->inputs[best]) > 0)
				continue;
		}
		best = i;
		best_rank = rank;
		best_at = at;
	}
	return best;
}

/* The one primary of a list's resolved elements. */
static void
choose_primary(Resolver *s, MergeUnit unit, int from)
{
	ContactValue *v = &s->result->contact;
	const MergeRule *rule = &s->policy->primary[unit];
	int			best = -1;
	int			best_input = 0;
	int			best_rank = 0;
	int64		best_at = 0;
	bool		any_witnessed = false;
	int		   *claimed = palloc(sizeof(int) * s->ninputs);
	const ContactStamp **stamps = palloc(sizeof(ContactStamp *) * s->ninputs);

	/* which element does each record claim to be primary? */
	for (int i = 0; i < s->ninputs; i++)
	{
		const MergeInput *in = &s->inputs[i];

		claimed[i] = -1;
		if (!in->record.alive || (rule->only && source_rank(rule, in) == rule->nsources))
			continue;
		for (int k = 0; k < in->record.state.nitems; k++)
		{
			const ContactItem *item = &in->record.state.items[k];

			if (item->field != lead_of[unit] || !(item->flags & CI_PRIMARY))
				continue;
			for (int e = from; e < v->nitems; e++)
				if (strview_cmp(v->items[e].key, item->key) == 0)
					claimed[i] = e;
			stamps[i] = &in->record.state.stamps[item->stamp];
			any_witnessed |= claimed[i] >= 0 && !(stamps[i]->flags & CS_ESTIMATE);
		}
	}
	/* the rule decides among them */
	for (int i = 0; i < s->ninputs; i++)
	{
		const MergeInput *in = &s->inputs[i];
		int			rank = source_rank(rule, in);
		int64		at;

		if (claimed[i] < 0)
			continue;
		/* recency as in collect() */
		at = any_witnessed ? merge_changed_at(&in->record, stamps[i]) : last_modification(&in->record);
		if (best >= 0)
		{
			int			r = 0;

			if (rule->kind == MR_SOURCE_PRIORITY)
				r = rank - best_rank;
			if (r == 0)
				r = at > best_at ? -1 : at < best_at;
			if (r == 0)
				r = rank - best_rank;
			if (r == 0)
				r = input_cmp(in, &s->inputs[best_input]);
			if (r >= 0)
				continue;
		}
		best = claimed[i];
		best_input = i;
		best_rank = rank;
		best_at = at;
	}
	/* nobody says so: verified, oldest, key */
	for (int e = from; best < 0 && e < v->nitems; e++)
	{
		int			b = from;

		for (int k = from + 1; k < v->nitems; k++)
		{
			const ContactItem *x = &v->items[k];
			const ContactItem *y = &v->items[b];
			int64		xt = v->stamps[x->stamp].changed_at;
			int64		yt = v->stamps[y->stamp].changed_at;

			if ((x->flags & CI_VERIFIED) != (y->flags & CI_VERIFIED))
			{
				if (x->flags & CI_VERIFIED)
					b = k;
			}
			else if (xt < yt || (xt == yt && strview_cmp(x->key, y->key) < 0))
				b = k;
		}
		best = b;
	}
	for (int e = from; e < v->nitems; e++)
	{
		v->items[e].flags &= ~CI_PRIMARY;
		if (e == best)
			v->items[e].flags |= CI_PRIMARY;
	}
}

static int
key_cmp(const void *a, const void *b)
{
	return strview_cmp(*(const StrView *) a, *(const StrView *) b);
}

/* Sort keys and drop those that repeat; returns how many are left. */
static int
unique_keys(StrView *keys, int n)
{
	int			m = 0;

	qsort(keys, n, sizeof(StrView), key_cmp);
	for (int i = 0; i < n; i++)
		if (m == 0 || strview_cmp(keys[m - 1], keys[i]) != 0)
			keys[m++] = keys[i];
	return m;
}

/* The distinct keys that any record has in a list, sorted. */
static int
list_keys(Resolver *s, ContactField field, StrView **keys)
{
	int			n = 0;
	int			max = 0;

	for (int i = 0; i < s->ninputs; i++)
		max += s->inputs[i].record.state.nitems;
	*keys = palloc(sizeof(StrView) * Max(max, 1));
	for (int i = 0; i < s->ninputs; i++)
	{
		const ContactValue *state = &s->inputs[i].record.state;

		for (int k = 0; s->inputs[i].record.alive && k < state->nitems; k++)
			if (state->items[k].field == field && state->items[k].key.len > 0)
				(*keys)[n++] = state->items[k].key;
	}
	return unique_keys(*keys, n);
}

static void
resolve_list(Resolver *s, MergeUnit unit)
{
	const MergeRule *rule = &s->policy->rules[unit];
	ContactField field = lead_of[unit];
	int			from = s->result->contact.nitems;
	StrView    *keys;
	int			nkeys;
	int			whole = -1;

	s->rule = rule;
	nkeys = list_keys(s, field, &keys);
	if (rule->kind != MR_UNION)
		whole = best_list(s, field);
	for (int k = 0; k < nkeys; k++)
	{
		bool		verified = false;
		int			live = -1;

		collect(s, CF_BIT(field), keys[k], field);
		for (int i = 0; i < s->nclaims; i++)
		{
			Claim	   *c = &s->claims[i];

			if (!competes(c))
				continue;
			verified |= (c->items[0]->flags & CI_VERIFIED) != 0;
			if (rule->kind != MR_UNION)
			{
				if (c->input != whole)
					continue;
				c->verdict = MV_WON;
			}
			else
				c->verdict = MV_UNITED;
			if (live < 0)
				live = i;
		}
		if (live >= 0)
		{
			ContactValue *v = &s->result->contact;

			emit_claim_item(s, &s->claims[live], s->claims[live].items[0]);
			if (verified)
			{
				v->items[v->nitems - 1].flags &= ~CI_UNVERIFIED;
				v->items[v->nitems - 1].flags |= CI_VERIFIED;
			}
		}
		explain_claims(s, field, keys[k], NULL);
	}
	if (field == CF_EMAILS || field == CF_PHONES)
		choose_primary(s, unit, from);
	pfree(keys);
}

static const MergeRule *
metadata_rule(const MergePolicy *p, StrView key)
{
	for (int i = 0; i < p->nmetadata; i++)
		if (strview_cmp(p->metadata[i].key, key) == 0)
			return &p->metadata[i].rule;
	return &p->rules[MU_METADATA];
}

static void
resolve_metadata(Resolver *s)
{
	StrView    *keys;
	int			nkeys = list_keys(s, CF_METADATA, &keys);

	/* by default each key by its latest change: the union of all keys */
	for (int k = 0; k < nkeys; k++)
		resolve_cell(s, CF_BIT(CF_METADATA), keys[k], CF_METADATA, metadata_rule(s->policy, keys[k]));
	pfree(keys);
}

void
merge_resolve(const MergePolicy *policy, MergeInput *inputs, int ninputs,
			  MergeDecision *decisions, int ndecisions, bool explain, MergeResult *result)
{
	Resolver	s = {0};

	memset(result, 0, sizeof(*result));
	result->naming_input = -1;
	s.policy = policy;
	s.inputs = inputs;
	s.ninputs = ninputs;
	s.decisions = decisions;
	s.ndecisions = ndecisions;
	s.explain = explain;
	s.result = result;
	s.maxitems = 32;
	result->contact.items = palloc(sizeof(ContactItem) * s.maxitems);
	result->contact.stamps = palloc(sizeof(ContactStamp) * s.maxitems);
	s.claims = palloc(sizeof(Claim) * Max(ninputs, 1));

	for (int i = 0; i < ninputs; i++)
	{
		if (!inputs[i].record.alive)
			continue;
		result->live = true;
		if (result->naming_input < 0 || input_cmp(&inputs[i], &inputs[result->naming_input]) < 0)
			result->naming_input = i;
	}

	for (int u = 0; u < MU_COUNT; u++)
	{
		uint32		fields = 0;

		for (int f = 0; f < CF_COUNT; f++)
			if (merge_unit_of(f) == u)
				fields |= CF_BIT(f);
		if (u == MU_METADATA)
			resolve_metadata(&s);
		else if (CF_IS_LIST(lead_of[u]))
			resolve_list(&s, u);
		else
		{
			resolve_cell(&s, fields, nokey, lead_of[u], &policy->rules[u]);
			for (int i = 0; u == MU_NAME && i < s.nclaims; i++)
				if (s.claims[i].verdict == MV_WON)
					result->naming_input = s.claims[i].input;
		}
	}
	contact_sort(&result->contact);
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
	nkeys = unique_keys(keys, nkeys);

	/* the record as it was after each of its observations */
	for (int n = 1; n <= nobs; n++)
	{
		MergeInput	in = {0};
		Resolver	s = {0};
		MergeResult scratch = {0};
		Claim		claim;

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

			s.rule = u < MU_COUNT ? &policy->rules[u] : metadata_rule(policy, key);
			if (s.rule->kind != MR_MANUAL_REVIEW || (u < MU_COUNT && CF_IS_LIST(lead_of[unit])))
				continue;
			for (int f = 0; f < CF_COUNT; f++)
				if (merge_unit_of(f) == unit)
					fields |= CF_BIT(f);
			collect(&s, fields, key, lead_of[unit]);
			if (*nruns == max)
				*runs = repalloc(*runs, sizeof(MergeRun) * (max *= 2));
			run = &(*runs)[(*nruns)++];
			run->field = lead_of[unit];
			run->key = key;
			run->at = obs[n - 1].effective;
			run->complete = s.nclaims > 0 && lead_filled(&s.claims[0], lead_of[unit]);
			run->bytes = s.nclaims > 0 && s.claims[0].nitems > 0 ? s.claims[0].bytes : nokey;
		}
	}
	pfree(prefix);
}
