# Real spellings of telephone numbers, judged as libphonenumber judges them: at
# least 99.5 % right.  Runs where CONTACTSYNC_PHONES names a file of lines
# "spelling, region (ZZ = none), E.164 or invalid, extension (? = not sure), tag",
# tabs between them.
use strict;
use warnings;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $file = $ENV{CONTACTSYNC_PHONES};
plan skip_all => 'CONTACTSYNC_PHONES names no file' unless $file && -f $file;

my @rows;
for my $line (split /\n/, slurp_file($file))
{
	my @fields = split /\t/, $line, -1;
	push @rows, [ @fields[ 0 .. 4 ] ] unless $line =~ /^#/ || @fields < 5;
}
plan skip_all => 'CONTACTSYNC_PHONES holds no rows' unless @rows;

my $node = PostgreSQL::Test::Cluster->new('phones');
$node->init(extra => [ '--encoding=UTF8', '--locale=C' ]);
$node->append_conf('postgresql.conf', "shared_preload_libraries = 'contactsync'\ncontactsync.enabled = off");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION contactsync');

my $quote = sub { my $s = shift; $s =~ s/'/''/g; return "'$s'" };
my $values = join ",\n", map { my $n = $_; "($n, " . join(', ', map { $quote->($_) } @{ $rows[$n] }) . ')' } 0 .. $#rows;
my $out = $node->safe_psql('postgres', <<"E");
SET client_encoding = 'UTF8';
CREATE TABLE public.phones (n integer, number text, region text, e164 text, extension text, tag text);
INSERT INTO public.phones VALUES $values;
SELECT n, CASE contactsync.phone_status(number, region) WHEN 'valid' THEN contactsync.normalize_phone(number, region) ELSE 'invalid' END,
	coalesce(contactsync.phone_extension(number, region), '') FROM public.phones ORDER BY n;
E

my ($right, $extensions, %wrong) = (0, 0);
for my $line (split /\n/, $out)
{
	my ($n, $e164, $extension) = split /\|/, $line, -1;
	my $row = $rows[$n];
	if ($e164 ne $row->[2])
	{
		$wrong{ $row->[4] }++;
		diag("$row->[4]: \"$row->[0]\" in $row->[1] is $e164, not $row->[2]");
		next;
	}
	$right++;
	next if $e164 eq 'invalid' || $row->[3] eq '?' || $extension eq $row->[3];
	$extensions++;
	diag("$row->[4]: \"$row->[0]\" has the extension \"$extension\", not \"$row->[3]\"");
}
note(sprintf('%d of %d right; wrong: %s', $right, scalar @rows, join(', ', map { "$_ $wrong{$_}" } sort keys %wrong) || 'none'));
cmp_ok($right, '>=', 0.995 * @rows, 'at least 99.5 % of the numbers are read right');
cmp_ok($extensions, '<=', 0.005 * $right, 'and so are their extensions');

# what is possible stays what it is: normalising again changes nothing
is($node->safe_psql('postgres', q{SELECT count(*) FROM public.phones p, LATERAL (SELECT contactsync.normalize_phone(number, region)) x (e164)
	WHERE x.e164 IS NOT NULL AND contactsync.normalize_phone(x.e164) IS DISTINCT FROM x.e164}), '0', 'E.164 is its own normal form');
# in a contact too
is($node->safe_psql('postgres', q{SELECT count(*) FROM public.phones p,
	LATERAL (SELECT pg_catalog.jsonb_build_object('phones', ARRAY[number])::contactsync.contact) x (c)
	WHERE NOT contactsync.contact_identical(c, c::text::contactsync.contact)}), '0', 'contacts read back what they write');

$node->stop;
done_testing();
