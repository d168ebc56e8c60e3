package millrace.peers.flink;

import millrace.peers.job.Model;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.BoundedOneInput;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;

/**
 * Scores rows together, since a call of the model costs as much as scoring two rows.
 *
 * <p>What waits goes on before each checkpoint's barrier, so the operator has no state: Flink's own mini-batches do the same.
 */
final class ScoreBatches extends AbstractStreamOperator<ScoredPayment>
        implements OneInputStreamOperator<ScoredPayment, ScoredPayment>, BoundedOneInput {
    private static final long serialVersionUID = 1L;

    private final String path;
    private final int mostRows;

    private transient Model model;
    private transient Model.Scorer scorer;
    private transient ScoredPayment[] waiting;
    private transient double[][] features;
    private transient float[] scores;
    private transient StreamRecord<ScoredPayment> record;
    private transient int rows;

    ScoreBatches(String path, int mostRows) {
        this.path = path;
        this.mostRows = mostRows;
    }

    @Override
    public void open() throws Exception {
        super.open();
        model = new Model(path);
        scorer = model.new Scorer(mostRows);
        waiting = new ScoredPayment[mostRows];
        features = new double[mostRows][];
        scores = new float[mostRows];
        record = new StreamRecord<>(null);
    }

    @Override
    public void processElement(StreamRecord<ScoredPayment> element) {
        waiting[rows] = element.getValue();
        features[rows] = waiting[rows].features;
        rows++;
        if (rows == mostRows) {
            score();
        }
    }

    @Override
    public void prepareSnapshotPreBarrier(long checkpointId) {
        score();
    }

    @Override
    public void endInput() {
        score();
    }

    @Override
    public void close() throws Exception {
        super.close();
        if (model != null) {
            model.close();
        }
    }

    private void score() {
        if (rows == 0) {
            return;
        }
        scorer.score(features, rows, scores);
        for (int row = 0; row < rows; row++) {
            waiting[row].score = scores[row];
            output.collect(record.replace(waiting[row]));
        }
        rows = 0;
    }
}
