/*
 * contact_fold.c
 *		Case folding of Unicode.
 *
 * Full folding tells words apart from words: capitals of "Straße" are
 * "STRASSE", and so both fold to "strasse".  Simple folding keeps the number of
 * characters, so that only what differs in nothing but case falls together.
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include "contact/contact_fold.h"

uint32
contact_fold_simple(uint32 c)
{
	int			low = 0;
	int			high = contact_fold_nranges;

	if (c < 0x80)
		return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
	/* the last range that does not begin behind it */
	while (low < high)
	{
		int			middle = (low + high) / 2;

		if (contact_fold_ranges[middle].first <= c)
			low = middle + 1;
		else
			high = middle;
	}
	if (low > 0)
	{
		const ContactFoldRange *r = &contact_fold_ranges[low - 1];

		if (c <= r->last && (c - r->first) % r->step == 0)
			return c + r->by;
	}
	return c;
}

int
contact_fold_full(uint32 c, uint32 *to)
{
	int			low = 0;
	int			high = contact_fold_nstrings;

	while (low < high && c >= contact_fold_strings[0].from)
	{
		int			middle = (low + high) / 2;
		const ContactFoldString *s = &contact_fold_strings[middle];

		if (s->from == c)
		{
			int			n = 0;

			while (n < CONTACT_FOLD_MAX && s->to[n] != 0)
			{
				to[n] = s->to[n];
				n++;
			}
			return n;
		}
		if (s->from < c)
			low = middle + 1;
		else
			high = middle;
	}
	to[0] = contact_fold_simple(c);
	return 1;
}
