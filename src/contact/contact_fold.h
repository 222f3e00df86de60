/*
 * contact_fold.h
 *		Case folding of Unicode, by tables: the same in every locale.
 *
 * Plain C that also builds as FRONTEND code.
 */
#ifndef CONTACTSYNC_CONTACT_FOLD_H
#define CONTACTSYNC_CONTACT_FOLD_H

/* Code points from first to last, "step" apart, that fold to themselves + by. */
typedef struct ContactFoldRange
{
	uint32		first;
	uint32		last;
	int32		step;
	int32		by;
} ContactFoldRange;

/* A code point that folds to several; zeros behind them. */
#define CONTACT_FOLD_MAX		3

typedef struct ContactFoldString
{
	uint32		from;
	uint32		to[CONTACT_FOLD_MAX];
} ContactFoldString;

/* contact_fold_data.c, written by case_folding.pl; both sorted */
extern const ContactFoldRange contact_fold_ranges[];
extern const int contact_fold_nranges;
extern const ContactFoldString contact_fold_strings[];
extern const int contact_fold_nstrings;

/* contact_fold.c */

/* What a code point folds to, if that is one: itself in most cases. */
extern uint32 contact_fold_simple(uint32 c);
/* What it folds to in full: as many code points. */
extern int	contact_fold_full(uint32 c, uint32 *to);

#endif							/* CONTACTSYNC_CONTACT_FOLD_H */
