#!/usr/bin/perl
# Write contact_fold_data.c from the Unicode data that comes with Perl:
#
#	perl src/contact/case_folding.pl > src/contact/contact_fold_data.c
#
# Keys of stored values and indexes hang on the tables, so a later version of
# Unicode must not replace them without a rebuild of what was keyed by them.
use strict;
use warnings;
use Unicode::UCD qw(casefold);

my (@simple, @full);
for my $c (0x80 .. 0x10FFFF)
{
	next if $c >= 0xD800 && $c < 0xE000;
	my $fold = casefold($c) or next;
	push @simple, [ $c, hex $fold->{simple} ] if $fold->{simple} ne '';
	push @full, [ $c, map { hex } split / /, $fold->{full} ] if $fold->{full} =~ / /;
}

# runs of code points, one or two apart, that move by the same distance
my @ranges;
for my $pair (@simple)
{
	my ($c, $to) = @$pair;
	my $r = $ranges[-1];
	if ($r && $to - $c == $r->{by} && ($r->{step} ? $c - $r->{last} == $r->{step} : $c - $r->{last} <= 2))
	{
		$r->{step} = $c - $r->{last};
		$r->{last} = $c;
	}
	else
	{
		push @ranges, { first => $c, last => $c, step => 0, by => $to - $c };
	}
}

my $version = Unicode::UCD::UnicodeVersion();
print <<"E";
/*
 * contact_fold_data.c
 *		Case folding of Unicode $version.  Written by case_folding.pl: do not edit.
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include "contact/contact_fold.h"

const ContactFoldRange contact_fold_ranges[] = {
E
printf "\t{0x%04X, 0x%04X, %d, %d},\n", $_->{first}, $_->{last}, $_->{step} || 1, $_->{by} for @ranges;
print "};\n\nconst int\tcontact_fold_nranges = ", scalar @ranges, ";\n\nconst ContactFoldString contact_fold_strings[] = {\n";
printf "\t{0x%04X, {%s}},\n", $_->[0], join ', ', map { sprintf '0x%04X', $_ } @{$_}[ 1 .. $#$_ ] for @full;
print "};\n\nconst int\tcontact_fold_nstrings = ", scalar @full, ";\n";
