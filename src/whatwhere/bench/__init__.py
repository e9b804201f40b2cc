"""What a CBAM costs: ours against a copy of the tensor and against peers, in one interleaved run.

``settings`` says what is measured, ``measure`` measures it in a process of its own, ``run`` goes
through all of it and resumes, ``summary`` and ``tables`` make numbers and pages of the records.
"""
