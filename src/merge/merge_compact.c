/*
 * merge_compact.c
 *		One base observation in place of the oldest ones of a record.
 *
 * A base may stand for observations only if nothing that can still come changes
 * what they contribute.  Later claims only add to the state that they make; a
 * later undelete or sighting, though, brings back what a delete had removed, and
 * refutes a delete by absence.  So a base ends before the first delete, but for
 * deletes of the past: between a delete that the source has sent and the next
 * such one all is said, and if the state starts after it, nothing before counts.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "merge/merge.h"

static int
observation_qsort_cmp(const void *a, const void *b)
{
	return merge_observation_cmp(a, b);
}

/*
 * How many observations, from the first on, no later state can contain.  obs is
 * sorted, without refuted deletes.  A merge at the source, and the delete after which
 * an id was used again, tell who the record is for good.
 */
static int
count_lost(const MergeObservation *obs, int nobs, int64 before)
{
	int			lost = 0;

	for (int i = 0; i < nobs && obs[i].effective < before; i++)
	{
		int			next;
		int			end;
		bool		reused;

		if (obs[i].kind != MK_DELETE || obs[i].inferred)
			continue;
		if (obs[i].into.len > 0)
			break;
		for (next = i + 1; next < nobs; next++)
			if (obs[next].kind == MK_DELETE && merge_version_cmp(&obs[next], &obs[i]) != 0)
				break;
		if (next == nobs || obs[next].inferred || obs[next].effective >= before)
			continue;
		if (!merge_starts_after(obs, nobs, i, false, &reused))
			continue;
		if (reused)
			break;
		for (end = i; end < nobs && merge_version_cmp(&obs[end], &obs[i]) <= 0; end++)
			;
		lost = end;
	}
	return lost;
}

/* Leave out runs that repeat the one before them of the same cell. */
static int
compress_runs(MergeRun *runs, int nruns)
{
	int			n = 0;

	for (int i = 0; i < nruns; i++)
	{
		int			before;

		for (before = n - 1; before >= 0; before--)
			if (runs[before].field == runs[i].field && strview_cmp(runs[before].key, runs[i].key) == 0)
				break;
		if (before >= 0 && runs[before].complete == runs[i].complete &&
			(runs[before].bytes.ptr == NULL) == (runs[i].bytes.ptr == NULL) &&
			strview_cmp(runs[before].bytes, runs[i].bytes) == 0)
			continue;
		runs[n++] = runs[i];
	}
	return n;
}

int
merge_compact(const MergePolicy *policy, MergeObservation *obs, int nobs, MergeSightings sightings,
			  StrView source, int64 before, MergeObservation *result, MergeBase *base)
{
	const MergeSightings unseen = {MERGE_TIME_MIN, MERGE_TIME_MIN};
	MergeObservation *copy;
	MergeObservation *newest;
	MergeRecord r;
	int			nlive;
	int			lost;
	int			n;
	int			nrefuted = 0;

	qsort(obs, nobs, sizeof(MergeObservation), observation_qsort_cmp);
	nlive = merge_drop_refuted(obs, nobs, sightings);
	n = lost = count_lost(obs, nlive, before);
	while (n < nlive && obs[n].kind != MK_DELETE && obs[n].effective < before)
		n++;
	if (n == 0)
		return 0;
	newest = &obs[n - 1];

	/* refuted deletes: in the order of versions they are among those that are gone, or stay */
	for (int i = nlive; i < nobs; i++)
		nrefuted += obs[i].effective <= newest->effective;
	if (n + nrefuted < 2)
		return 0;

	memset(result, 0, sizeof(*result));
	memset(base, 0, sizeof(*base));
	copy = palloc_extended(sizeof(MergeObservation) * n, MCXT_ALLOC_HUGE);
	memcpy(copy, obs + lost, sizeof(MergeObservation) * (n - lost));
	merge_fold(copy, n - lost, unseen, source, &r);
	result->kind = MK_BASE;
	result->effective = newest->effective;
	result->raw = newest->raw;
	result->seq = newest->seq;
	result->modified = MERGE_TIME_MIN;
	result->claims.value = r.state;
	result->base = base;
	/* the latest creation: the proof of life that any of them may be for a delete to come */
	result->created = MERGE_TIME_MIN;
	for (int i = 0; i < n; i++)
		if (obs[i].kind != MK_DELETE)
			result->created = Max(result->created, obs[i].created);
	base->created = r.created;
	base->version = r.version;
	base->modified = r.modified;
	base->same_version_conflicts = r.same_version_conflicts;
	base->covered = r.covered;
	base->uncovered = r.uncovered;
	base->cleared = r.cleared;
	memcpy(copy, obs, sizeof(MergeObservation) * n);
	merge_history(policy, copy, n, unseen, source, &base->runs, &base->nruns);
	base->nruns = compress_runs(base->runs, base->nruns);

	/* bring the refuted ones to them */
	for (int i = nlive; i < nobs; i++)
	{
		MergeObservation o = obs[i];

		if (o.effective > newest->effective)
			continue;
		memmove(obs + n + 1, obs + n, sizeof(MergeObservation) * (i - n));
		obs[n++] = o;
	}
	/* the newest of all, refuted or not */
	for (int i = 1; i < n; i++)
		if (merge_observation_cmp(newest, &obs[i]) < 0)
			newest = &obs[i];
	if (newest->kind == MK_BASE)
		base->last = newest->base->last;
	else
	{
		base->last.effective = newest->effective;
		base->last.raw = newest->raw;
		base->last.seq = newest->seq;
		memcpy(base->last.digest, newest->digest, MERGE_DIGEST_LEN);
	}
	return n;
}
