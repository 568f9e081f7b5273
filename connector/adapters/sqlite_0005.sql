-- The closings that we have signed: those of which the other side has not been told yet are looked for at every start, among few.
create index evidence_closing on evidence(participant, what, pid) where what = 'closing-signed';
