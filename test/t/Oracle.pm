# What a script of test/oracle finds, in two databases of a cluster at a time.
package Oracle;
use strict;
use warnings;
use Exporter 'import';
use FindBin;
use IPC::Run;
our @EXPORT = qw(ask_oracle);

# Half of the rounds with this seed, the other half with the next one; true for each half that agrees, and all reports.
sub ask_oracle
{
	my ($node, $script, $seed, $rounds) = @_;
	my @halves = ({ seed => $seed, rounds => int($rounds / 2) }, { seed => $seed + 1, rounds => $rounds - int($rounds / 2) });
	for my $half (grep { $_->{rounds} > 0 } @halves)
	{
		my $db = "oracle$half->{seed}";
		$node->safe_psql('postgres', "CREATE DATABASE $db");
		$node->safe_psql($db, 'CREATE EXTENSION contactsync');
		$half->{report} = '';
		$half->{run} = IPC::Run::start([ 'python3', '-B', "$FindBin::Bin/../oracle/$script", $half->{seed}, $half->{rounds}, '-d', $node->connstr($db) ],
			'>&', \$half->{report});
	}
	my @ran = grep { $_->{run} } @halves;
	$_->{ok} = IPC::Run::finish($_->{run}) for @ran;
	return ((grep { !$_->{ok} } @ran) == 0, map { $_->{report} } @ran);
}

1;
