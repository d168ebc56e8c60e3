package millrace.peers.job;

import ai.onnxruntime.OnnxTensor;
import ai.onnxruntime.OrtEnvironment;
import ai.onnxruntime.OrtException;
import ai.onnxruntime.OrtSession;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.FloatBuffer;
import java.util.Map;
import java.util.Set;

/** The model, behind ONNX Runtime with one thread. Several threads may share it: a forest in the processor's cache is there for all. */
public final class Model implements AutoCloseable {
    private static final String INPUT = "features";
    private static final Set<String> OUTPUT = Set.of("probabilities");

    private final OrtEnvironment environment = OrtEnvironment.getEnvironment();
    private final OrtSession session;

    public Model(String path) {
        try (OrtSession.SessionOptions options = new OrtSession.SessionOptions()) {
            options.setIntraOpNumThreads(1);
            options.setInterOpNumThreads(1);
            session = environment.createSession(path, options);
        } catch (OrtException error) {
            throw new IllegalStateException("no model could be made of " + path, error);
        }
    }

    @Override
    public void close() {
        try {
            session.close();
        } catch (OrtException error) {
            throw new IllegalStateException(error);
        }
    }

    /** One thread's use of the model: its rows lie in a buffer outside the heap, made once. */
    public final class Scorer {
        private final FloatBuffer rows;

        public Scorer(int mostRows) {
            ByteBuffer bytes = ByteBuffer.allocateDirect(mostRows * Windows.FEATURES * Float.BYTES);
            rows = bytes.order(ByteOrder.nativeOrder()).asFloatBuffer();
        }

        /** Score the first {@code count} rows of {@code features}: for each the probability of the second class. */
        public void score(double[][] features, int count, float[] scores) {
            rows.clear();
            for (int row = 0; row < count; row++) {
                for (double feature : features[row]) {
                    rows.put((float) feature);
                }
            }
            rows.flip();
            try (OnnxTensor input = OnnxTensor.createTensor(environment, rows, new long[] {count, Windows.FEATURES});
                    OrtSession.Result result = session.run(Map.of(INPUT, input), OUTPUT)) {
                FloatBuffer probabilities = ((OnnxTensor) result.get(0)).getFloatBuffer();
                for (int row = 0; row < count; row++) {
                    scores[row] = probabilities.get(2 * row + 1);
                }
            } catch (OrtException error) {
                throw new IllegalStateException("the model failed", error);
            }
        }
    }
}
