/*
 * store_fold.c
 *		Records folded from what is stored of them: their states and names.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "compat.h"
#include "store/store.h"

/* Add a name to those that a record ever had; one without a last name is none. */
static void
note_name(StoreRecord *r, StrView last, StrView first)
{
	StrView		l = contact_name_key(last);
	StrView		f = first.len > 0 ? contact_name_key(first) : first;
	StrView		name;
	StrView    *names;
	int			at = 0;

	if (l.len == 0)
		return;
	name.ptr = psprintf("%.*s\n%.*s", l.len, l.ptr, f.len, f.len ? f.ptr : "");
	name.len = strlen(name.ptr);
	while (at < r->nnames && strview_cmp(r->names[at], name) < 0)
		at++;
	if (at < r->nnames && strview_cmp(r->names[at], name) == 0)
		return;
	names = palloc(sizeof(StrView) * (r->nnames + 1));
	memcpy(names, r->names, sizeof(StrView) * at);
	names[at] = name;
	memcpy(names + at + 1, r->names + at, sizeof(StrView) * (r->nnames - at));
	r->names = names;
	r->nnames++;
}

static StrView
text_of(const ContactValue *v, ContactField field)
{
	const StrView none = {NULL, 0};
	int			i = contact_find(v, field, none);

	if (i < 0 || (v->items[i].flags & CI_TOMBSTONE) ||
		(v->nstamps > 0 && (v->stamps[v->items[i].stamp].flags & CS_DERIVED)))
		return none;
	return v->items[i].value;
}

#define NAME_COVERS	(CF_BIT(CF_FIRST_NAME) | CF_BIT(CF_LAST_NAME))

/*
 * The names that a record had before or after a position: what it was called
 * after each of its observations, where a patch of one half leaves the other as it
 * was.  Deletes do not make a record forget them.  obs is sorted.
 */
void
store_note_names(StoreRecord *r, const MergeObservation *obs, int nobs, const MergePosition *cut, bool after,
				 StrView *first, StrView *last)
{
	r->nnames = 0;
	*first = *last = strview(NULL, 0);
	for (int i = 0; i < nobs; i++)
	{
		uint32		covers = obs[i].claims.covers & NAME_COVERS;

		if (obs[i].kind == MK_DELETE || merge_observation_after(&obs[i], cut) != after)
			continue;
		if (obs[i].kind == MK_BASE)
		{
			r->nnames = obs[i].base->nnames;
			r->names = obs[i].base->names;
			*first = obs[i].base->first_name;
			*last = obs[i].base->last_name;
			continue;
		}
		if (covers == 0 || merge_overruled(obs, nobs, i))
			continue;
		if (covers & CF_BIT(CF_FIRST_NAME))
			*first = text_of(&obs[i].claims.value, CF_FIRST_NAME);
		if (covers & CF_BIT(CF_LAST_NAME))
			*last = text_of(&obs[i].claims.value, CF_LAST_NAME);
		note_name(r, *last, *first);
	}
}

/*
 * The names that a record ever had.  Where its source gave the id to a new record
 * they are those of that one, unless it is somebody of the same name.
 */
static void
note_all_names(StoreRecord *r, const MergeObservation *obs, int nobs)
{
	static const MergePosition start = {.effective = MERGE_TIME_MIN};
	StrView    *before;
	int			nbefore;
	StrView		first;
	StrView		last;

	if (r->m.reused.effective != MERGE_TIME_MIN)
	{
		store_note_names(r, obs, nobs, &r->m.reused, false, &first, &last);
		before = r->names;
		nbefore = r->nnames;
		store_note_names(r, obs, nobs, &r->m.reused, true, &first, &last);
		if (identity_names_agree(nbefore, before, r->nnames, r->names) < 0)
			return;
		r->m.reused = start;
	}
	store_note_names(r, obs, nobs, &start, true, &first, &last);
}

/*
 * Add an observation to its record in place of a refold; false if that is not
 * possible.
 */
bool
store_step(StoreRecord *r, const MergeObservation *o)
{
	uint32		covers = o->claims.covers & NAME_COVERS;

	if (!merge_fold_step(&r->m, o, r->source))
		return false;
	if (covers != 0)
	{
		int			nnames = r->nnames;

		note_name(r, text_of(&r->m.state, CF_LAST_NAME), text_of(&r->m.state, CF_FIRST_NAME));
		r->relink |= r->nnames != nnames;
	}
	return true;
}

static bool
has_derived(const MergeObservation *o)
{
	return o->written || (o->kind == MK_BASE && merge_has_derived(&o->claims.value));
}

MergeObservation *
store_own_claims(const StoreRecord *r, MergeObservation *obs, int nobs)
{
	MergeObservation *own;
	bool		derived = false;

	for (int i = 0; i < nobs; i++)
		derived |= has_derived(&obs[i]);
	if (!derived)
		return obs;
	own = palloc_extended(sizeof(MergeObservation) * nobs, MCXT_ALLOC_HUGE);
	memcpy(own, obs, sizeof(MergeObservation) * nobs);
	merge_keep_own_claims(own, nobs, r->source);
	return own;
}

void
store_fold_one(StoreRecord *r, MergeObservation *obs, int nobs)
{
	merge_fold(obs, nobs, r->m.sightings, r->source, &r->m);
	note_all_names(r, store_own_claims(r, obs, nobs), nobs);
}

/* May there be less evidence than all that was asserted? */
static bool
may_be_less(const MergeObservation *obs, int nobs)
{
	bool		deleted = false;
	bool		created = false;
	bool		derived = false;

	for (int i = 0; i < nobs; i++)
	{
		deleted |= obs[i].kind == MK_DELETE;
		created |= obs[i].created != MERGE_TIME_MIN;
		derived |= has_derived(&obs[i]);
	}
	return derived || (deleted && created);
}

/*
 * Fold records anew from all that is stored of them, and take their evidence anew
 * where more than an addition may have happened to it: where versions were moved,
 * or an id used again, which no longer proves what it proved of the old record.
 */
void
store_fold(StoreRecord *records, int nrecords, StoreEvidence *evidence)
{
	StoreArray	ids;
	StoreHistories h;
	int			r = 0;

	store_array_init(&ids, INT8OID);
	for (int i = 0; i < nrecords; i++)
	{
		StoreRecord *f = &records[i];

		if (!f->refold)
			continue;
		store_array_add(&ids, Int64GetDatum(f->id), false);
		if (f->restamped)
			store_array_add(&evidence->anew, Int64GetDatum(f->id), false);
		/* of nothing, if nothing is stored of it */
		merge_fold(NULL, 0, f->m.sightings, f->source, &f->m);
		f->nnames = 0;
	}
	if (ids.n == 0)
		return;
	h = store_load_histories(&ids);
	for (int k = 0; k < h.n; k++)
	{
		MergeObservation *obs = h.histories[k].observations;
		int			nobs = h.histories[k].n;
		MergeObservation *own;

		CHECK_FOR_INTERRUPTS();
		/* which is the next one, where records are sorted by id */
		while (records[r].id != h.histories[k].record_id)
			r = (r + 1) % nrecords;
		store_fold_one(&records[r], obs, nobs);
		if (records[r].restamped || may_be_less(obs, nobs))
		{
			if (!records[r].restamped)
				store_array_add(&evidence->anew, Int64GetDatum(records[r].id), false);
			records[r].restamped = true;
			own = store_own_claims(&records[r], obs, nobs);
			for (int i = 0; i < nobs; i++)
				if (merge_observation_after(&own[i], &records[r].m.reused))
					store_note_evidence(&own[i], &records[r], evidence);
		}
	}
}

void
store_refold(StoreArray *record_ids, int64 cause_id, bool restamp, StoreRecord **records, int *nrecords)
{
	StoreEvidence evidence;
	int			n;

	*records = store_records_by_id(record_ids, &n);
	for (int i = 0; i < n; i++)
	{
		StoreRecord *r = &(*records)[i];

		store_deform_state(r);
		r->changed = r->refold = true;
		r->restamped = restamp;
		r->cause_id = cause_id;
	}
	store_evidence_init(&evidence);
	store_fold(*records, n, &evidence);
	store_save_records(*records, n);
	store_save_evidence(&evidence, *records, n);
	*nrecords = n;
}
